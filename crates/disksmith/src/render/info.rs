//! What `info` prints.

use std::sync::Arc;

use disksmith_disk::{Disk, Result, human_size, names};
use disksmith_formats::{Fact, Image, OpenRequest, Snapshot, driver};
use disksmith_open::{Node, OpenedDisk};
use disksmith_partitions::Partition;
use serde_json::{Map, Value, json};

use super::json::pretty;
use super::snapshots;
use crate::content::Findings;
use crate::face::Page;

type Facts = Vec<(&'static str, Fact)>;

/// What is known about an image, or about the file under it.
#[derive(Debug, Default)]
pub(crate) struct ImageInfo {
    children: Vec<(String, ImageInfo)>,
    backing_format: Option<String>,
    snapshots: Vec<Snapshot>,
    virtual_size: u64,
    filename: String,
    cluster_size: Option<u64>,
    encrypted: bool,
    format: String,
    actual_size: Option<u64>,
    specific: Option<Facts>,
    full_backing: Option<String>,
    backing: Option<String>,
    dirty: Option<bool>,
    /// What only the native face tells: a label and a value each, with the JSON key.
    native: Vec<(&'static str, &'static str, Value)>,
    findings: Findings,
}

/// The guest's disk, where it can be read without opening anything that the image names and
/// without a key.
fn readable(node: &Node) -> Option<Arc<dyn Image>> {
    let image = &node.image;
    if image.encrypted() || image.backing().is_some() || image.data_file().is_some() {
        return None;
    }
    let request = OpenRequest { options: node.spec.options.clone(), ..OpenRequest::default() };
    (driver(image.format())?.open)(image.storage().clone(), request).ok()
}

impl ImageInfo {
    /// Collects what an open image tells.
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let image = &node.image;
        if node.spec.bare {
            return Ok(of_storage(node));
        }
        let backing = image.backing();
        Ok(Self {
            children: children(node),
            backing_format: backing.as_ref().and_then(|b| b.format.clone()),
            snapshots: image.snapshots(),
            virtual_size: image.size(),
            filename: node.filename(),
            cluster_size: image.cluster_size(),
            encrypted: image.encrypted(),
            format: image.format().to_string(),
            actual_size: allocated(node),
            specific: image.facts()?,
            full_backing: node.full_backing_name(),
            backing: backing.map(|b| b.name),
            // What is not known of the storage is not told.
            dirty: image.dirty().or((node.file.is_some() || node.below.is_some()).then_some(false)),
            native: Vec::new(),
            findings: Findings::default(),
        })
    }

    /// Adds what qemu-img does not tell.
    pub(crate) fn add_native(&mut self, node: &Node) {
        let device = node.file.as_ref().is_some_and(|file| file.is_block_device());
        if let Some(actual) = self.actual_size.filter(|_| self.virtual_size > 0 && !device) {
            let part = 100.0 * actual as f64 / self.virtual_size as f64;
            let text = format!(
                "{} of {} ({part:.1} %)",
                human_size(actual),
                human_size(self.virtual_size)
            );
            self.native.push(("allocated", "allocated", json!(text)));
        }
        if !node.ambiguous.is_empty() {
            self.native.push(("also fits", "ambiguous-formats", json!(node.ambiguous)));
        }
        if let Some(findings) = readable(node).map(|disk| crate::content::look(&*disk)) {
            self.findings = findings;
        }
    }

    fn is_protocol(&self) -> bool {
        self.children.is_empty()
    }
}

/// Bytes allocated by the host for everything this image opened.
fn allocated(node: &Node) -> Option<u64> {
    let file = match (&node.file, &node.below) {
        // The host allocates nothing for a device.
        (Some(file), _) if file.is_block_device() => 0,
        (Some(file), _) => file.allocated().ok()?,
        (None, below) => allocated(below.as_ref()?)?,
    };
    let data = node.data_file.as_ref().and_then(|(_, data)| data.allocated().ok()).unwrap_or(0);
    file.checked_add(data)
}

fn children(node: &Node) -> Vec<(String, ImageInfo)> {
    let mut children = Vec::new();
    if let Some((path, data)) = &node.data_file {
        children.push(("data-file".to_string(), of_file(&names::of_path(path), data)));
    }
    let below = node.below.as_ref().map(|below| ImageInfo::of(below));
    if let Some(Ok(below)) = below {
        children.push(("file".to_string(), below));
    } else if node.file.is_none() {
        children.push(("file".to_string(), of_storage(node)));
    } else if let Some(file) = &node.file {
        let name = node.path.as_deref().map(names::of_path);
        children.push(("file".to_string(), of_file(&name.unwrap_or_default(), file)));
    }
    children
}

/// The storage under an image: its file, or what else it lies on.
fn of_storage(node: &Node) -> ImageInfo {
    match (&node.file, &node.spec.file) {
        (Some(file), _) => of_file(&names::of_path(file.path()), file),
        (None, disksmith_open::FileSpec::Other(spec)) => ImageInfo {
            virtual_size: node.image.storage().size(),
            filename: node.filename(),
            format: spec.driver.clone(),
            ..ImageInfo::default()
        },
        (None, _) => ImageInfo::default(),
    }
}

fn of_file(name: &str, file: &disksmith_host::FileDisk) -> ImageInfo {
    let format = if file.is_block_device() { "host_device" } else { "file" };
    ImageInfo {
        virtual_size: file.size(),
        filename: name.to_string(),
        format: format.to_string(),
        actual_size: match file.is_block_device() {
            true => Some(0),
            false => file.allocated().ok(),
        },
        specific: Some(Vec::new()),
        dirty: Some(false),
        ..ImageInfo::default()
    }
}

/// The human form: one block per image, an empty line between.
pub(crate) fn text(images: &[ImageInfo], drop_in: bool, page: &mut Page<'_>) {
    for (index, image) in images.iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        block(image, drop_in, page);
    }
}

fn block(image: &ImageInfo, drop_in: bool, page: &mut Page<'_>) {
    node_text(image, 0, drop_in, page);
    for (label, _, value) in &image.native {
        let value = match value {
            Value::String(value) => value.clone(),
            Value::Array(values) => {
                values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        page.line(&format!("{label}: {value}"));
    }
    findings_lines(&image.findings).for_each(|line| page.line(&line));
    // A child node tells nothing to a person who asked for the image.
    if drop_in {
        children_text(image, "/", 0, page);
    }
}

fn children_text(image: &ImageInfo, path: &str, level: usize, page: &mut Page<'_>) {
    for (name, child) in &image.children {
        let indent = " ".repeat(level * 4);
        page.line(&format!("{indent}Child node '{path}{name}':"));
        node_text(child, level + 1, true, page);
        children_text(child, &format!("{path}{name}/"), level + 1, page);
    }
}

fn node_text(image: &ImageInfo, level: usize, drop_in: bool, page: &mut Page<'_>) {
    let indent = " ".repeat(level * 4);
    let mut line = |line: String| page.line(&format!("{indent}{line}"));
    let shown =
        |name: &str| if drop_in { name.to_string() } else { crate::render::printable(name) };
    let size = format!("{} ({} bytes)", human_size(image.virtual_size), image.virtual_size);
    let (name, format, length) = match image.is_protocol() && level > 0 {
        true => ("filename", "protocol type", "file length"),
        false => ("image", "file format", "virtual size"),
    };
    line(format!("{name}: {}", shown(&image.filename)));
    line(format!("{format}: {}", image.format));
    line(format!("{length}: {size}"));
    line(format!("disk size: {}", image.actual_size.map_or("unavailable".into(), human_size)));
    if image.encrypted {
        line("encrypted: yes".into());
    }
    if let Some(bytes) = image.cluster_size {
        line(format!("cluster_size: {bytes}"));
    }
    if image.dirty == Some(true) {
        line("cleanly shut down: no".into());
    }
    if let Some(backing) = &image.backing {
        let place = match &image.full_backing {
            None => " (cannot determine actual path)".to_string(),
            Some(full) if full != backing => format!(" (actual path: {})", shown(full)),
            Some(_) => String::new(),
        };
        line(format!("backing file: {}{place}", shown(backing)));
        if let Some(format) = &image.backing_format {
            line(format!("backing file format: {}", shown(format)));
        }
    }
    for row in snapshots::table(&image.snapshots) {
        line(shown(&row));
    }
    if let Some(facts) = image.specific.as_ref().filter(|facts| !facts.is_empty()) {
        line("Format specific information:".into());
        facts_text(facts, level + 1, page);
    }
}

fn facts_text(facts: &[(&'static str, Fact)], level: usize, page: &mut Page<'_>) {
    for (key, fact) in facts {
        fact_text(&key.replace('-', " "), fact, level, page);
    }
}

fn fact_text(label: &str, fact: &Fact, level: usize, page: &mut Page<'_>) {
    let indent = " ".repeat(level * 4);
    let value = match fact {
        Fact::Bool(value) => value.to_string(),
        Fact::Number(value) => value.to_string(),
        Fact::Text(value) => value.clone(),
        Fact::List(values) => {
            page.line(&format!("{indent}{label}:"));
            for (index, value) in values.iter().enumerate() {
                fact_text(&format!("[{index}]"), value, level + 1, page);
            }
            return;
        }
        Fact::Map(facts) => {
            page.line(&format!("{indent}{label}:"));
            return facts_text(facts, level + 1, page);
        }
    };
    page.line(&format!("{indent}{label}: {value}"));
}

/// One image as JSON.
pub(crate) fn json(image: &ImageInfo) -> String {
    pretty(&value(image))
}

/// A chain as a JSON list.
pub(crate) fn json_list(images: &[ImageInfo]) -> String {
    pretty(&Value::Array(images.iter().map(value).collect()))
}

/// A part of an image, or a snapshot: a disk of its own, of which only the content is told.
pub(crate) fn part(opened: &OpenedDisk, json: bool) -> String {
    let (findings, size) = (crate::content::look(&*opened.disk), opened.disk.size());
    let partition = opened.partition.as_ref();
    if json {
        let mut map = Map::new();
        map.insert("virtual-size".into(), json!(size));
        map.insert("filename".into(), json!(opened.shown));
        map.insert("format".into(), json!(opened.node.image.format()));
        if let Some(partition) = partition {
            map.insert("partition".into(), partition_value(partition, opened.start, size));
        }
        map.extend(findings.json);
        return pretty(&Value::Object(map));
    }
    let mut text = format!("image: {}\n", super::printable(&opened.shown));
    if let Some(partition) = partition {
        text += &format!("partition: {}, {}", partition.number, partition.kind.name());
        if !partition.name.is_empty() {
            text += &format!(" \"{}\"", super::printable(&partition.name));
        }
        text += &format!(", sectors {} to {}\n", partition.start, partition.end());
    }
    text += &format!("file format: {}\n", opened.node.image.format());
    text += &format!("virtual size: {} ({size} bytes)\n", human_size(size));
    findings_lines(&findings).for_each(|line| text += &format!("{line}\n"));
    text
}

/// A partition with positions in bytes.
pub(crate) fn partition_value(partition: &Partition, start: u64, size: u64) -> Value {
    json!({
        "number": partition.number,
        "start": start,
        "size": size,
        "type": partition.kind.name(),
        "type-id": partition.kind.to_string(),
        "name": partition.name,
        "uuid": partition.uuid.map(|uuid| uuid.to_string()),
        "bootable": partition.boots(),
    })
}

fn findings_lines(findings: &Findings) -> impl Iterator<Item = String> {
    findings.lines.iter().enumerate().map(|(index, line)| {
        let label = if index == 0 { "content: " } else { "    " };
        format!("{label}{}", super::printable(line))
    })
}

fn value(image: &ImageInfo) -> Value {
    let mut map = Map::new();
    let children =
        image.children.iter().map(|(name, child)| json!({"name": name, "info": value(child)}));
    map.insert("children".into(), children.collect());
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.into(), value);
        }
    };
    put("backing-filename-format", image.backing_format.as_ref().map(|f| json!(f)));
    if !image.snapshots.is_empty() {
        put("snapshots", Some(image.snapshots.iter().map(snapshots::value).collect()));
    }
    put("virtual-size", Some(json!(image.virtual_size)));
    put("filename", Some(json!(image.filename)));
    put("cluster-size", image.cluster_size.map(|s| json!(s)));
    put("format", Some(json!(image.format)));
    put("actual-size", image.actual_size.map(|s| json!(s)));
    put(
        "format-specific",
        image
            .specific
            .as_ref()
            .map(|facts| json!({"type": image.format, "data": facts_value(facts)})),
    );
    put("full-backing-filename", image.full_backing.as_ref().map(|f| json!(f)));
    put("encrypted", image.encrypted.then(|| json!(true)));
    put("backing-filename", image.backing.as_ref().map(|f| json!(f)));
    put("dirty-flag", image.dirty.map(|d| json!(d)));
    for (_, key, value) in &image.native {
        put(key, Some(value.clone()));
    }
    for (key, value) in &image.findings.json {
        put(key, Some(value.clone()));
    }
    Value::Object(map)
}

fn facts_value(facts: &[(&'static str, Fact)]) -> Value {
    facts
        .iter()
        .map(|(key, fact)| ((*key).to_string(), fact_value(fact)))
        .collect::<Map<_, _>>()
        .into()
}

fn fact_value(fact: &Fact) -> Value {
    match fact {
        Fact::Bool(value) => json!(value),
        Fact::Number(value) => json!(value),
        Fact::Text(value) => json!(value),
        Fact::List(values) => values.iter().map(fact_value).collect(),
        Fact::Map(facts) => facts_value(facts),
    }
}
