//! VMware's faults, as far as an instant clone meets them. A [`Status`](crate::Status) carries one among its details.

use crate::{Code, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Which fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    InvalidArgument {
        property: String,
    },
    /// Also for a machine that is not powered on, which the documents list under `InvalidArgument` as well: the request is
    /// right, and succeeds when the machine runs.
    InvalidState,
    InvalidDatastore {
        name: String,
    },
    FileFault {
        file: String,
    },
    InsufficientResourcesFault,
    DisallowedMigrationDeviceAttached,
}

/// A fault with what is said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodFault {
    /// Its type.
    #[serde(rename = "_typeName")]
    pub type_name: String,
    /// What it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_cause: Option<Box<MethodFault>>,
    /// What is said of it.
    #[serde(default)]
    pub fault_message: Vec<LocalizableMessage>,
    /// The fields of its own type.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// A message with its parts, for who translates it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalizableMessage {
    /// What kind of message.
    pub key: String,
    /// Its parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arg: Vec<KeyAnyValue>,
    /// In English.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnyValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl Fault {
    /// A property of the request that cannot be as it is.
    pub fn argument(property: &str) -> Self {
        Self::InvalidArgument {
            property: property.to_owned(),
        }
    }

    /// The fault with its message.
    pub fn with(self, message: &str) -> MethodFault {
        let (type_name, field) = match self {
            Self::InvalidArgument { property } => ("InvalidArgument", Some(("invalidProperty", property))),
            Self::InvalidState => ("InvalidState", None),
            Self::InvalidDatastore { name } => ("InvalidDatastore", Some(("name", name))),
            Self::FileFault { file } => ("FileFault", Some(("file", file))),
            Self::InsufficientResourcesFault => ("InsufficientResourcesFault", None),
            Self::DisallowedMigrationDeviceAttached => ("DisallowedMigrationDeviceAttached", None),
        };
        let arg = field.iter().map(|(key, value)| KeyAnyValue {
            key: (*key).to_owned(),
            value: json!({ "_typeName": "string", "_value": value }),
        });
        MethodFault {
            type_name: type_name.to_owned(),
            fault_cause: None,
            fault_message: vec![LocalizableMessage {
                key: format!("offshoot.fault.{type_name}"),
                arg: arg.collect(),
                message: Some(message.to_owned()),
            }],
            more: field.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect(),
        }
    }

    /// A status with this fault among its details, saying the same.
    pub fn of(self, mut status: Status) -> Status {
        let fault = self.with(&status.message);
        // A fault is made of texts: it always serialises.
        status
            .details
            .push(serde_json::to_value(fault).unwrap_or_default());
        status
    }
}

impl MethodFault {
    /// The status that says the same.
    pub fn status(self) -> Status {
        let code = match self.type_name.as_str() {
            "InvalidState" => Code::FailedPrecondition,
            "InsufficientResourcesFault" => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        let message = self.fault_message.first().and_then(|m| m.message.clone());
        let property = self.more.get("invalidProperty").and_then(Value::as_str);
        let message = message.unwrap_or_else(|| self.type_name.clone());
        let mut status = match property {
            Some(property) if code == Code::InvalidArgument => Status::invalid(property, message),
            _ => Status::new(code, message),
        };
        status
            .details
            .push(serde_json::to_value(self).unwrap_or_default());
        status
    }
}

/// The fault among a status's details.
pub fn of(status: &Status) -> Option<MethodFault> {
    status
        .details
        .iter()
        .find(|d| d.get("_typeName").is_some())
        .and_then(|d| serde_json::from_value(d.clone()).ok())
}
