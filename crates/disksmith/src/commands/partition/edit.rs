//! Edits of the table: what each would do, and doing it.

use std::io::Read;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_partitions::{
    Align, Amount, DiskId, Label, Length, Plan, Severity, Source as Copy, Step, Table, add,
    convert, find, init_with_id, minimise, move_partition, parse_dump, remove, repair, resize,
    restore,
};
use serde_json::{Value, json};

use super::{Action, PartitionVerb};
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::progress::Progress;
use crate::render::json::pretty;

/// A dump that is read has at most so many bytes.
const MAX_DUMP: u64 = 16 << 20;

impl PartitionVerb {
    /// What the action would do.
    pub(super) fn plan(
        &self,
        face: &Face,
        disk: &dyn Disk,
        table: &Table,
        action: &Action,
    ) -> Result<Plan, Failure> {
        let new = match action {
            Action::Init { label, id } => {
                let label = sort(label)?;
                let id = id.as_deref().map(|id| DiskId::parse(id, label)).transpose()?;
                init_with_id(table, label, id)?
            }
            Action::Add(arguments) => add(table, &arguments.request(disk, table)?)?.0,
            Action::Remove { partitions } => removed(table, partitions)?,
            Action::Resize { partition, size, align } => {
                let number = number(table, partition)?;
                resize(table, number, length(size)?, Align::parse(align, disk)?)?
            }
            Action::Move { partition, start } => {
                let to = start.parse::<Amount>()?.sectors(table.sector_size);
                return Ok(move_partition(disk, table, number(table, partition)?, to)?);
            }
            Action::Set(arguments) => arguments.apply(table)?,
            Action::Repair { from } => return self.repair(face, disk, table, from),
            Action::Convert { label } => convert(table, sort(label)?)?,
            Action::Restore { file } => restore(table, &parse_dump(&read_dump(file.as_deref())?)?)?,
            Action::Minimise => minimise(table)?,
            Action::Verify | Action::Dump => table.clone(),
        };
        Ok(Plan::new(disk, table, &new)?)
    }

    fn repair(
        &self,
        face: &Face,
        disk: &dyn Disk,
        table: &Table,
        from: &str,
    ) -> Result<Plan, Failure> {
        let source = match from {
            "auto" => Copy::Auto,
            "primary" => Copy::Primary,
            "backup" => Copy::Backup,
            other => {
                return usage(format!("--from expects auto, primary or backup, not '{other}'"));
            }
        };
        let repair = repair(disk, table, source)?;
        if !self.quiet {
            let done = if self.dry_run { "would mend" } else { "mended" };
            for odd in repair
                .fixed
                .iter()
                .filter(|_| repair.plan.permit(self.force || self.dry_run).is_ok())
            {
                face.note(&format!("{done}: {odd}\n"));
            }
            for odd in repair.remaining.iter().filter(|odd| odd.severity() != Severity::Note) {
                face.note(&format!("left as it is: {odd}\n"));
            }
        }
        Ok(repair.plan)
    }

    /// Tells the plan and, unless that is all, follows it.
    pub(super) fn carry_out(
        &self,
        face: &Face,
        disk: &dyn Disk,
        plan: &Plan,
        json: bool,
    ) -> Outcome {
        if json {
            face.print(&pretty(&plan_json(plan)));
        } else if self.dry_run || !self.quiet {
            let mut lines = plan.changes();
            if plan.is_empty() {
                lines.push("nothing to do".to_string());
            }
            if self.dry_run {
                lines.extend(plan.describe());
                lines.extend(plan.losses.iter().map(|loss| format!("would need --force: {loss}")));
            } else {
                // What is told as done must have been permitted first.
                plan.permit(self.force)?;
            }
            if !lines.is_empty() {
                face.print(&format!("{}\n", lines.join("\n")));
            }
        }
        if self.dry_run {
            return Ok(DONE);
        }
        let mut progress = Progress::new(face, false, self.quiet);
        let result = plan.apply_with(disk, self.force, &mut |now| {
            progress.show(now.done, now.total);
            Ok(())
        });
        progress.finish();
        result?;
        Ok(DONE)
    }
}

/// The number of the partition that `selector` names.
pub(super) fn number(table: &Table, selector: &str) -> Result<u32, Failure> {
    match find(table, selector)? {
        Some(partition) => Ok(partition.number),
        None => {
            Err(Error::new(Kind::NotFound, format!("there is no partition '{selector}'")).into())
        }
    }
}

/// From the last one on: removing a logical partition changes the numbers behind it.
fn removed(table: &Table, selectors: &[String]) -> Result<Table, Failure> {
    let mut numbers = Vec::new();
    for selector in selectors {
        numbers.push(number(table, selector)?);
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    let mut new = table.clone();
    for number in numbers {
        // The logical ones go with the extended one.
        if new.partition(number).is_some() {
            new = remove(&new, number)?;
        }
    }
    Ok(new)
}

/// A size, or `rest`.
pub(super) fn length(text: &str) -> Result<Length, Failure> {
    if text == "rest" {
        return Ok(Length::Rest);
    }
    if let Some(sectors) = text.strip_suffix('s').and_then(|digits| digits.parse().ok()) {
        return Ok(Length::Sectors(sectors));
    }
    Ok(Length::Bytes(disksmith_disk::parse_size(text)?))
}

fn sort(label: &str) -> Result<Label, Failure> {
    match label {
        "gpt" => Ok(Label::Gpt),
        "mbr" | "dos" | "msdos" => Ok(Label::Mbr),
        other => usage(format!("'{other}' is no sort of partition table: gpt and mbr are")),
    }
}

fn read_dump(file: Option<&str>) -> Result<String> {
    let mut text = String::new();
    match file.filter(|name| *name != "-") {
        None => std::io::stdin().lock().take(MAX_DUMP).read_to_string(&mut text),
        Some(name) => {
            std::fs::File::open(name).and_then(|file| file.take(MAX_DUMP).read_to_string(&mut text))
        }
    }
    .with_context(|| format!("Could not read '{}'", file.unwrap_or("-")))?;
    Ok(text)
}

fn plan_json(plan: &Plan) -> Value {
    let step = |step: &Step| match step {
        Step::Flush => json!({"step": "flush"}),
        Step::SetSize(bytes) => json!({"step": "set-size", "size": bytes}),
        Step::Move(step) => {
            json!({"step": "move", "from": step.from, "to": step.to, "length": step.length})
        }
        Step::Write { offset, data, what } => {
            json!({"step": "write", "offset": offset, "length": data.len(), "what": what})
        }
    };
    json!({
        "changes": plan.changes(),
        "steps": plan.steps.iter().map(step).collect::<Vec<Value>>(),
        "losses": plan.losses.iter().map(|loss| loss.to_string()).collect::<Vec<String>>(),
    })
}
