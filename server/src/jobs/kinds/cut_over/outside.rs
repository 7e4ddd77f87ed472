//! The source of a cutover where it is a machine of a libvirt.

use super::{migrating, spec};
use crate::db;
use crate::jobs::kinds::is_now;
use crate::jobs::step::{Cx, StepError};
use crate::sources::{SourceError, Sources, libvirt};
use ::libvirt::Connection;
use std::time::Duration;

pub(super) struct Outside {
    connection: Connection,
    /// As its libvirt knows it.
    id: String,
}

impl Outside {
    /// The machine of a libvirt that is cut over, if it is one.
    pub(super) async fn of(cx: &Cx) -> Result<Option<Self>, StepError> {
        let Some(of) = spec(cx)?.outside else {
            return Ok(None);
        };
        let place = Sources::of(cx.world()).libvirt(of.source).await?;
        let place = place.ok_or_else(|| is_now("source", of.source))?;
        Ok(Some(Self {
            connection: libvirt::open(&place).await?,
            id: of.id,
        }))
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection, &str) -> ::libvirt::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let id = self.id.clone();
        libvirt::ask(&self.connection, move |c| ask(c, &id)).await
    }

    pub(super) async fn is_active(&self) -> Result<bool, StepError> {
        Ok(self.ask(Connection::is_active).await?)
    }

    /// Shuts it down; after a time its power is taken away.
    pub(super) async fn shut_down(&self, cx: &Cx) -> Result<(), StepError> {
        let mut changes = self.ask(Connection::watch).await?;
        if !self.is_active().await? {
            return Ok(());
        }
        cx.message(format!(
            "{} is shutting down",
            migrating(cx).await?.source_vm_name
        ));
        let off = async {
            while self.is_active().await? {
                changes.changed().await;
            }
            Ok::<_, StepError>(())
        };
        // Where nobody hears it there is nothing to wait for.
        let heard = self.ask(Connection::shut_down).await.unwrap_or_else(|e| {
            cx.log(format!("it is not asked to shut down: {}", db::chain(&e)));
            false
        });
        let after = match heard {
            true => spec(cx)?.request.power_off_after_seconds,
            false => 0,
        };
        match tokio::time::timeout(Duration::from_secs(after.into()), off).await {
            Ok(off) => off,
            Err(_) => {
                cx.message("its power is taken away");
                Ok(self.ask(Connection::power_off).await?)
            }
        }
    }

    /// Two machines that are one must not come up together when hosts start.
    pub(super) async fn no_autostart(&self) -> Result<(), StepError> {
        Ok(self.ask(Connection::no_autostart).await?)
    }

    /// Starts it again. One that is gone has nothing to be started.
    pub(super) async fn start(&self) -> Result<(), StepError> {
        match self.ask(Connection::start).await {
            Err(SourceError::Libvirt(::libvirt::Error::Gone(_))) => Ok(()),
            started => Ok(started?),
        }
    }
}
