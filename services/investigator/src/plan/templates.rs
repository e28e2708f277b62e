//! The files that hosts get, from templates.

use std::path::Path;

use commissaire::{Error, Result};
use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde::Serialize;

/// The templates: those of a folder of one's own, and the one that is built in.
#[derive(Debug)]
pub(crate) struct Templates(Environment<'static>);

/// The template of flannel's settings.
pub(crate) const FLANNELD: &str = "flanneld.j2";
/// The template of Docker's.
pub(crate) const DOCKER: &str = "daemon.json.j2";

const BUILT_IN: [(&str, Option<&str>); 2] = [(FLANNELD, Some(include_str!("flanneld.j2"))), (DOCKER, None)];

impl Templates {
    pub(crate) fn read(folder: Option<&Path>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_filter("word", |text: String| word(&text));
        for (name, built_in) in BUILT_IN {
            let own = folder.map(|folder| folder.join(name)).filter(|path| path.exists());
            let (text, shown) = match (&own, built_in) {
                (Some(path), _) => {
                    let text = std::fs::read_to_string(path);
                    let shown = path.display().to_string();
                    (text.map_err(|e| Error::config(format!("template {shown} cannot be read: {e}")))?, shown)
                }
                (None, Some(built_in)) => (built_in.to_owned(), name.to_owned()),
                (None, None) => continue,
            };
            let added = environment.add_template_owned(name, text);
            added.map_err(|e| Error::config(format!("template {shown}: {e}")))?;
        }
        Ok(Self(environment))
    }

    /// Whether there is a template `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get_template(name).is_ok()
    }

    /// The template `name` with `values`, or why that cannot be.
    pub(crate) fn render(&self, name: &str, values: impl Serialize) -> std::result::Result<String, String> {
        let rendered = self.0.get_template(name).and_then(|template| template.render(Serde(values)));
        // A file ends with a line, which the template's own end is not.
        rendered.map(|text| text + "\n").map_err(|e| format!("template {name}: {e}"))
    }
}

/// A value in a file that both systemd and shells read.
fn word(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`"))
}
