//! Models: what each kind of record holds, as data.

use commissaire::nearest;
use serde_json::{Map, Value};

use crate::record::{
    CLUSTER, CLUSTER_DEPLOY, CLUSTER_RESTART, CLUSTER_UPGRADE, CONTAINER_MANAGER_CONFIG, HOST, HOST_CREDS,
    HOST_STATE, HOST_STATUS, INVESTIGATION, NETWORK, NODE_DRAIN, OPERATION, OPERATION_HOST, WATCH_SHARD,
    WATCHER_RECORD,
};

/// All models.
pub static MODELS: [&Model; 16] = [
    &HOST,
    &HOST_CREDS,
    &HOST_STATE,
    &HOST_STATUS,
    &INVESTIGATION,
    &CLUSTER,
    &CLUSTER_DEPLOY,
    &CLUSTER_RESTART,
    &CLUSTER_UPGRADE,
    &NETWORK,
    &CONTAINER_MANAGER_CONFIG,
    &NODE_DRAIN,
    &OPERATION,
    &OPERATION_HOST,
    &WATCH_SHARD,
    &WATCHER_RECORD,
];

/// One kind of record.
#[derive(Debug, PartialEq)]
pub struct Model {
    /// Its name, `Host`.
    pub name: &'static str,
    /// The name of a list of them, `Hosts`, where there is one.
    pub list: Option<&'static str>,
    /// The field that tells one record from another.
    pub key: Option<&'static str>,
    /// What it holds.
    pub fields: &'static [Field],
    /// What must hold beyond the types of the fields.
    pub rules: &'static [Rule],
    /// Where storage keeps it.
    pub kept: Kept,
}

/// Where storage keeps the records of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// As they are.
    Plain,
    /// Encrypted; never listed, announced or logged.
    Sealed,
    /// Nowhere: they are computed, or travel on the bus only.
    Nowhere,
}

/// One field of a model.
#[derive(Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it is when it is not given.
    pub missing: Missing,
    /// Whether it is left out of renderings that others than the record's users see: announcements, logs, errors.
    pub hidden: bool,
}

/// What a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number from 0 to `most`.
    Int {
        /// The greatest.
        most: u64,
    },
    /// A list of text.
    Texts,
    /// An object of anything; the members named are hidden as a hidden field is.
    Object {
        /// Members that hold a secret.
        secret: &'static [&'static str],
    },
}

/// What a field is when it is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A fault.
    Fault,
    /// This text.
    Text(&'static str),
    /// 0, or an empty list or object.
    Empty,
}

/// What must hold for a record beyond the types of its fields.
#[derive(Debug, PartialEq)]
pub enum Rule {
    /// The text field must not be empty.
    NotEmpty(&'static str),
    /// The text field is one of these words.
    OneOf(&'static str, &'static [&'static str]),
    /// The object field has no other members than these; a hyphen in a name equals an underscore.
    Known(&'static str, &'static [&'static str]),
    /// When the text field `field` is `word`, the object field `object` has a text member `member` in the form
    /// `host:port`.
    HostPort {
        /// The field that decides.
        field: &'static str,
        /// What it must be for the rule to hold.
        word: &'static str,
        /// The object.
        object: &'static str,
        /// Its member.
        member: &'static str,
    },
}

impl Model {
    /// The model of this name, `Host`.
    pub fn find(name: &str) -> Option<&'static Self> {
        MODELS.into_iter().find(|model| model.name == name)
    }

    /// The model of this name, or of lists of this name: `Hosts` as well as `Host`.
    pub fn find_listed(name: &str) -> Option<&'static Self> {
        MODELS.into_iter().find(|model| model.name == name || model.list == Some(name))
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The name of the field that was probably meant by `name`.
    pub fn nearest_field(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.fields.iter().map(|field| field.name))
    }

    /// The key of `record`, if it is there.
    pub fn key_of<'a>(&self, record: &'a Map<String, Value>) -> Option<&'a str> {
        record.get(self.key?)?.as_str()
    }

    /// A record that has this key and otherwise nothing but defaults. Fields without a default are left out.
    pub fn blank(&self, key: &str) -> Map<String, Value> {
        let mut record: Map<String, Value> =
            self.fields.iter().filter_map(|field| Some((field.name.to_owned(), field.default()?))).collect();
        if let Some(field) = self.key {
            record.insert(field.to_owned(), key.into());
        }
        record
    }

    /// The members of the object field `name` that hold a secret.
    pub fn secrets_of(&self, name: &str) -> &'static [&'static str] {
        self.field(name).map(|field| field.kind.secret()).unwrap_or_default()
    }

    /// Whether [`hide`](Self::hide) would change nothing in any record.
    pub fn hides_nothing(&self) -> bool {
        self.fields.iter().all(|field| !field.hidden && field.kind.secret().is_empty())
    }

    /// Whether its records hold secrets: then they travel sealed, and secrets are kept sealed.
    pub fn holds_secrets(&self) -> bool {
        self.kept == Kept::Sealed || self.fields.iter().any(|field| !field.kind.secret().is_empty())
    }

    /// Takes the secrets out of `record`, which is not secret as a whole. Whether there were any.
    pub fn take_secrets(&self, record: &mut Map<String, Value>) -> bool {
        let mut any = false;
        for field in self.fields {
            let Some(Value::Object(members)) = record.get_mut(field.name) else { continue };
            for secret in field.kind.secret() {
                any |= members.remove(*secret).is_some();
            }
        }
        any
    }

    /// Takes out of `record` what others than its users must not see: the safe rendering.
    pub fn hide(&self, record: &mut Map<String, Value>) {
        for field in self.fields {
            if field.hidden {
                record.remove(field.name);
            } else if let Some(Value::Object(members)) = record.get_mut(field.name) {
                for secret in field.kind.secret() {
                    members.remove(*secret);
                }
            }
        }
    }
}

impl Field {
    /// A text field without a default.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text, missing: Missing::Fault, hidden: false }
    }

    /// A field of whole numbers from 0 to `most`, 0 by default.
    pub const fn int(name: &'static str, most: u64) -> Self {
        Self { name, kind: Kind::Int { most }, missing: Missing::Empty, hidden: false }
    }

    /// A field that is a list of text, empty by default.
    pub const fn texts(name: &'static str) -> Self {
        Self { name, kind: Kind::Texts, missing: Missing::Empty, hidden: false }
    }

    /// A field that is an object, empty by default. The members named hold secrets.
    pub const fn object(name: &'static str, secret: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Object { secret }, missing: Missing::Empty, hidden: false }
    }

    /// With this text as the default.
    pub const fn or(self, text: &'static str) -> Self {
        Self { missing: Missing::Text(text), ..self }
    }

    /// Left out of safe renderings.
    pub const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// What it is when it is not given; `None` when it must be given.
    pub fn default(&self) -> Option<Value> {
        match (self.missing, self.kind) {
            (Missing::Fault, _) => None,
            (Missing::Text(text), _) => Some(text.into()),
            (Missing::Empty, Kind::Text) => Some("".into()),
            (Missing::Empty, Kind::Int { .. }) => Some(0.into()),
            (Missing::Empty, Kind::Texts) => Some(Value::Array(Vec::new())),
            (Missing::Empty, Kind::Object { .. }) => Some(Value::Object(Map::new())),
        }
    }
}

impl Kind {
    /// The members of an object that hold a secret.
    pub fn secret(self) -> &'static [&'static str] {
        match self {
            Self::Object { secret } => secret,
            _ => &[],
        }
    }
}
