//! What a live serial line says beside what its guest says.

use serde::{Deserialize, Serialize};

/// How a viewer is sent away when the machine has ended: the code of a WebSocket's close.
pub const OFF: u16 = 4000;
/// The same, when the session or token has ended.
pub const SIGNED_OUT: u16 = 4001;

/// A text message of a serial line; what the guest says is binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Note {
    /// So many bytes follow that were said before; the first message there is.
    Backlog(u64),
    /// So many bytes were left out here, because the viewer was too far behind.
    Skipped(u64),
    /// The log was cut here because it had grown too long; a line may be missing.
    Cut {},
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_written_as_the_browser_reads_them() {
        for (note, text) in [
            (Note::Backlog(5), r#"{"backlog":5}"#),
            (Note::Skipped(7), r#"{"skipped":7}"#),
            (Note::Cut {}, r#"{"cut":{}}"#),
        ] {
            assert_eq!(serde_json::to_string(&note).unwrap(), text);
            assert_eq!(serde_json::from_str::<Note>(text).unwrap(), note);
        }
    }
}
