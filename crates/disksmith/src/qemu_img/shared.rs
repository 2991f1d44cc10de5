//! From parsed options to the arguments that verbs share.

use super::Parsed;
use crate::commands::common::{Form, Keys, Source};
use crate::face::{Failure, usage};
use crate::progress::Telling;

impl Parsed {
    /// The format, `--image-opts` and `--object`.
    pub(super) fn source(&self) -> Source {
        Source {
            format: self.value("format"),
            image_opts: self.has("image-opts"),
            keys: self.keys(),
            untrusted: false,
        }
    }

    /// `--object`.
    pub(super) fn keys(&self) -> Keys {
        Keys { objects: self.all("object"), implied: false }
    }

    /// `--output`.
    pub(super) fn form(&self) -> Result<Form, Failure> {
        let form = Form { output: self.value("output"), json: false };
        form.is_json()?;
        Ok(form)
    }

    /// `-p` and `-q`.
    pub(super) fn telling(&self) -> Telling {
        Telling { progress: self.has("progress"), form: None, quiet: self.has("quiet") }
    }

    /// The only operand.
    pub(super) fn one_image(&self) -> Result<String, Failure> {
        match self.operands.as_slice() {
            [image] => Ok(image.clone()),
            _ => usage("Expecting one image file name"),
        }
    }
}
