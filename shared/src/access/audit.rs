//! Who did what, and what was refused.

use crate::{Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// How long events are kept unless it is said, in days.
pub const KEPT_DAYS: u32 = 365;

/// A request that changed something, or was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Its number: a later event has a greater one.
    pub id: u64,
    /// When it was answered.
    pub time: Timestamp,
    /// The user, if it is known who it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The name of the user, with that of the token; or the name that was given to sign in.
    pub user: String,
    /// The address that it came from.
    pub address: String,
    /// The method.
    pub method: String,
    /// The route: the path with its parameters in braces.
    pub route: String,
    /// The path.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// `OK`, or the word of the error.
    pub result: String,
    /// Why it was refused, or the address of what was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The id under which the log has the whole story.
    pub request_id: String,
}

/// What an export looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// One JSON object on each line.
    #[default]
    Jsonl,
    /// Comma-separated values with a line of heads.
    Csv,
}

impl AuditEvent {
    /// The heads of an export with commas.
    pub const CSV_HEADS: &str = "id,time,user,address,method,route,path,status,result,detail,requestId";

    /// The event as a line with commas.
    pub fn csv(&self) -> String {
        let texts = [
            &self.user,
            &self.address,
            &self.method,
            &self.route,
            &self.path,
            &self.status.to_string(),
            &self.result,
            &self.detail,
            &self.request_id,
        ];
        let cells: Vec<_> = texts.into_iter().map(|text| csv_cell(text)).collect();
        format!("{},{},{}", self.id, self.time, cells.join(","))
    }
}

/// Quoted where it must be. What a spreadsheet would take for a formula is made text.
fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_breaks_no_line() {
        assert_eq!(csv_cell("plain"), "plain");
        assert_eq!(csv_cell("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(csv_cell("=1+1"), "'=1+1");
    }
}
