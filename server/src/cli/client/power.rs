//! Switching machines off.

use super::follow;
use super::http::{Client, ClientError};
use shared::api::{ListQuery, ListVms, MAX_PAGE_SIZE, Stop};
use shared::vm::{StopMode, StopVm, VmState};

/// Takes the power from every machine that has some, and returns when all are off.
pub async fn all_off(client: &Client) -> Result<(), ClientError> {
    let query = ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    };
    let mut jobs = Vec::new();
    for vm in client.call(&ListVms { query }).await?.vms {
        // One that is only starting belongs to a job, which goes on at the next start of the server.
        if matches!(vm.state, VmState::Running | VmState::Paused | VmState::Stopping) {
            let request = StopVm {
                mode: StopMode::PowerOff,
                power_off_after_seconds: None,
            };
            let vm = vm.id.to_string();
            jobs.push(client.call(&Stop { vm, request }).await?);
        }
    }
    for job in jobs {
        follow::to_end(client, job, |_| {}).await?;
    }
    Ok(())
}
