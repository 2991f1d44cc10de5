//! Looking at files by address: what `ls`, `stat`, `find` and `du` do one address after the other.

use disksmith_disk::{Error, Result};
use serde_json::Value;

use super::{Access, Guest, Guests, path_of, show};
use crate::commands::common::Form;
use crate::face::{DONE, FAILED, Face, Outcome};
use crate::render::json::pretty;

/// What was found so far.
pub(crate) struct Looking<'a> {
    pub(crate) face: &'a Face,
    /// Whether [`tell`](Self::tell) is wanted instead of text.
    pub(crate) json: bool,
    told: Vec<Value>,
    status: u8,
}

impl Looking<'_> {
    /// Adds to the JSON that is printed in the end.
    pub(crate) fn tell(&mut self, value: Value) {
        self.told.push(value);
    }

    /// Tells of something that cannot be looked at; the rest is.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.face.report(error);
        self.status = FAILED;
    }

    /// The same for a file, by its path.
    pub(crate) fn fail_at(&mut self, path: &[u8], error: Error) {
        self.fail(&error.context(show::name(path)));
    }
}

/// Looks at what the addresses mean. What fails is told, and the others are looked at.
pub(crate) fn look(
    face: &Face,
    access: &Access,
    form: &Form,
    texts: &[String],
    each: &mut dyn FnMut(&mut Looking<'_>, &Guest, &str) -> Result<()>,
) -> Outcome {
    let mut looking = Looking { face, json: form.is_json()?, told: Vec::new(), status: DONE };
    let mut guests = Guests::new(access, &[]);
    for text in texts {
        let address = access.address(text);
        let number = guests.open(&address)?;
        if let Err(error) = each(&mut looking, guests.get(number), path_of(&address)) {
            looking.fail(&error);
        }
    }
    if looking.json {
        face.print(&pretty(&Value::Array(looking.told)));
    }
    Ok(looking.status)
}
