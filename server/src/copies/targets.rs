//! Targets come, change and go.

use super::{Copies, CopiesError, about, secret_of, store, vault_key_of};
use crate::db::{self, now, targets::Stored};
use shared::copy::{Booted, Copy};
use shared::target::{AT_ONCE, CreateTarget, Found, PatchTarget, Place, Target};
use shared::{CopyId, Name, Status, TargetId};
use std::collections::HashSet;
use uuid::Uuid;
use vault::store::{Objects, Rate};
use vault::{Making, Opening, Vault, Wrapping};

/// What the note is called that says how a copy booted.
const BOOTED: &str = "booted";

/// Takes what is secret out of a place.
fn take_secret(place: &mut Place) -> Option<String> {
    let of_s3 = place.s3.as_mut().and_then(|s3| s3.secret_access_key.take());
    let of_remote = place.remote.as_mut().and_then(|remote| remote.token.take());
    of_s3.or(of_remote).filter(|secret| !secret.is_empty())
}

/// Which field lacks its secret; a directory needs none.
fn lacks_secret(place: &Place, secret: Option<&str>) -> Result<(), Status> {
    match (&place.s3, &place.remote, secret) {
        (Some(_), _, None) => Err(Status::invalid(
            "s3.secretAccessKey",
            "requests are signed with it: give it",
        )),
        (_, Some(_), None) => Err(Status::invalid(
            "remote.token",
            "the other server asks for one: make it there, with the privilege target.store",
        )),
        _ => Ok(()),
    }
}

async fn probe(target: &Name, objects: &dyn Objects) -> Result<Found, CopiesError> {
    let failed = |source| CopiesError::Vault {
        target: target.to_string(),
        source,
    };
    let found = vault::store::probe(objects).await.map_err(failed)?;
    Ok(Found {
        time: now(),
        conditional_put: found.conditional_put,
        write_micros: found.write_micros,
        read_micros: found.read_micros,
    })
}

impl Copies {
    /// Adds a target: tries it, and makes a vault there or takes the one that is there, with its copies.
    pub async fn create(&self, request: CreateTarget) -> Result<Target, CopiesError> {
        request.check()?;
        let mut place = request.place();
        let secret = take_secret(&mut place);
        lacks_secret(&place, secret.as_deref())?;
        if let Some(local) = &place.local {
            directory(&local.path, !request.attach).await?;
        }
        let name = request.name.clone();
        let objects = store(name.as_str(), &place, secret.as_deref(), &Rate::new(0))?;
        let found = probe(&name, &*objects).await?;
        let failed = |source| CopiesError::Vault {
            target: name.to_string(),
            source,
        };
        let vault = if request.attach {
            Vault::open(objects, &opening(&request)).await.map_err(failed)?
        } else {
            let [first, rest @ ..] = &wrappings(&request)[..] else {
                return Err(Status::invalid("passphrase", "a new vault needs a key").into());
            };
            let made = Vault::create(objects, first, Making::at(now().micros())).await;
            let made = made.map_err(|e| match e {
                vault::Error::Exists { created } => Status::precondition(format!(
                    "there is a vault there already, made {}: attach it with its passphrase, or name another place",
                    shared::Timestamp::from_micros(created)
                ))
                .into(),
                e => failed(e),
            })?;
            for wrapping in rest {
                made.add_key(wrapping).await.map_err(failed)?;
            }
            made
        };
        let id = TargetId(Uuid::now_v7());
        let seal = |what: String, plain: &[u8]| self.sealer.seal(&what, plain);
        let stored = Stored {
            secret: secret
                .map(|secret| seal(secret_of(id), secret.as_bytes()))
                .transpose()?,
            vault_key: seal(vault_key_of(id), vault.key().bytes())?,
            target: Target {
                id,
                name: request.name,
                kind: place.kind()?,
                place,
                vault: vault.id(),
                found,
                away: None,
                away_since: None,
                bytes_per_second: request.bytes_per_second.filter(|rate| *rate > 0),
                at_once: request.at_once.unwrap_or(AT_ONCE),
                copies: 0,
                stored_bytes: 0,
                create_time: now(),
                checked: None,
                generation: 0,
            },
        };
        let written = self.db.write(move |tx| {
            Box::pin(async move {
                db::targets::insert(tx, &stored).await?;
                Ok(stored)
            })
        });
        let stored = written.await?;
        if request.attach {
            self.read_copies(&stored.target, &vault).await?;
        }
        Ok(db::targets::known(&self.db, &id.to_string()).await?.target)
    }

    /// Writes down which copies a vault has: those that are new here, and those that are gone there.
    async fn read_copies(&self, target: &Target, vault: &Vault) -> Result<(), CopiesError> {
        let failed = |source| CopiesError::Vault {
            target: target.name.to_string(),
            source,
        };
        let there: HashSet<CopyId> = vault
            .copy_ids()
            .await
            .map_err(failed)?
            .into_iter()
            .map(CopyId)
            .collect();
        let here: HashSet<CopyId> = db::copies::of_target(&self.db, target.id)
            .await?
            .into_iter()
            .collect();
        let gone: Vec<_> = here.difference(&there).copied().collect();
        let held: HashSet<CopyId> = vault
            .holds()
            .await
            .map_err(failed)?
            .iter()
            .map(|h| CopyId(h.copy))
            .collect();
        let known = there.clone();
        let mut new = Vec::new();
        for id in there.difference(&here) {
            match vault.copy(id.0).await {
                Ok(found) => {
                    let notes = vault.notes(id.0).await.map_err(failed)?;
                    let booted = notes.get(BOOTED).cloned();
                    let booted: Option<Booted> = booted.and_then(|note| serde_json::from_value(note).ok());
                    new.extend(about::copy(target.id, &target.name, &found).map(|copy| (copy, booted)));
                }
                // Removed since it was listed, or damaged: a look at all that is there names that.
                Err(vault::Error::NoCopy(_) | vault::Error::Damaged { .. }) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    for (copy, booted) in &new {
                        db::copies::insert(tx, copy).await?;
                        if let Some(booted) = booted {
                            db::copies::set_booted(tx, copy.id, booted).await?;
                        }
                    }
                    for id in known {
                        db::copies::set_hold(tx, id, held.contains(&id)).await?;
                    }
                    for id in gone {
                        db::copies::delete(tx, id).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(())
    }

    /// Changes a target. Where it is said to be elsewhere, the same vault has to be there.
    pub async fn update(&self, reference: &str, request: PatchTarget) -> Result<Target, CopiesError> {
        request.check()?;
        let mut stored = db::targets::known(&self.db, reference).await?;
        let id = stored.target.id;
        if let Some(mut place) = request.place() {
            if place.kind()? != stored.target.kind {
                let why = format!(
                    "target {} stays of kind {}",
                    stored.target.name, stored.target.kind
                );
                return Err(Status::invalid("local", why).into());
            }
            if let Some(secret) = take_secret(&mut place) {
                stored.secret = Some(self.sealer.seal(&secret_of(id), secret.as_bytes())?);
            }
            stored.target.place = place;
            let opened = self.open_stored(&stored).await?;
            let found = probe(&stored.target.name, &*opened.vault.objects()).await?;
            self.db
                .write(move |tx| Box::pin(async move { db::targets::set_found(tx, id, &found).await }))
                .await?;
        }
        if let Some(name) = request.name {
            stored.target.name = name;
        }
        if let Some(rate) = request.bytes_per_second {
            stored.target.bytes_per_second = Some(rate).filter(|rate| *rate > 0);
        }
        if let Some(at_once) = request.at_once {
            stored.target.at_once = at_once;
        }
        self.limit(id, stored.target.bytes_per_second);
        self.db
            .write(move |tx| Box::pin(async move { db::targets::update(tx, &stored).await }))
            .await?;
        self.forget(id);
        self.turns.freed.notify_waiters();
        Ok(db::targets::known(&self.db, &id.to_string()).await?.target)
    }

    /// Tries a target again, and reads which copies are there.
    pub async fn check(&self, reference: &str) -> Result<Target, CopiesError> {
        let stored = db::targets::known(&self.db, reference).await?;
        let id = stored.target.id;
        self.forget(id);
        let checked = async {
            let opened = self.open(id).await?;
            let found = probe(&stored.target.name, &*opened.vault.objects()).await?;
            self.read_copies(&stored.target, &opened.vault).await?;
            Ok(found)
        };
        match checked.await {
            Ok(found) => {
                self.db
                    .write(move |tx| Box::pin(async move { db::targets::set_found(tx, id, &found).await }))
                    .await?;
                self.turns.freed.notify_waiters();
                Ok(db::targets::known(&self.db, &id.to_string()).await?.target)
            }
            Err(e) => {
                self.note(id, Some(&e)).await?;
                Err(e)
            }
        }
    }

    /// Takes a target off the books. What is there stays.
    pub async fn detach(&self, reference: &str) -> Result<(), CopiesError> {
        let target = db::targets::known(&self.db, reference).await?.target;
        let (id, name) = (target.id, target.name);
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(what) = db::targets::needed(tx, id).await? {
                        let message =
                            format!("{what} needs target {name}: detach it when that is no more so");
                        return Err(Status::precondition(message).into());
                    }
                    db::targets::delete(tx, id).await
                })
            })
            .await?;
        self.forget(id);
        Ok(())
    }

    /// Puts a copy under legal hold, for every server that has its vault, or takes that back.
    pub async fn set_hold(&self, copy: &Copy, hold: bool, by: &str) -> Result<(), CopiesError> {
        let opened = self.open(copy.target).await?;
        let id = copy.id;
        let done = match hold {
            true => opened.vault.hold(id.0, by, now().micros()).await.map(drop),
            false => opened.vault.release(id.0).await,
        };
        let done = done.map_err(|e| opened.failed(e));
        self.note(copy.target, done.as_ref().err()).await?;
        done?;
        self.db
            .write(move |tx| Box::pin(async move { db::copies::set_hold(tx, id, hold).await }))
            .await?;
        Ok(())
    }

    /// Has the sign that a copy boots travel with it.
    pub async fn keep_sign(
        &self,
        target: TargetId,
        copy: CopyId,
        booted: &Booted,
    ) -> Result<(), CopiesError> {
        let opened = self.open(target).await?;
        let note = serde_json::to_value(booted).unwrap_or_default();
        let kept = opened.vault.note(copy.0, BOOTED, &note).await;
        kept.map_err(|e| opened.failed(e))
    }

    /// Removes a copy. What only it needed goes when its target is cleaned up.
    pub async fn remove(&self, copy: &Copy) -> Result<(), CopiesError> {
        shared::can::can_delete_copy(copy)?;
        self.close_files(copy.id).await;
        let opened = self.open(copy.target).await?;
        let id = copy.id;
        let gone = opened.vault.forget(id.0).await.map_err(|e| opened.failed(e));
        self.note(copy.target, gone.as_ref().err()).await?;
        gone?;
        self.db
            .write(move |tx| Box::pin(async move { db::copies::delete(tx, id).await }))
            .await?;
        Ok(())
    }
}

fn opening(request: &CreateTarget) -> Opening {
    match (&request.identity, &request.passphrase) {
        (Some(identity), _) => Opening::Identity(identity.trim().to_owned()),
        (None, passphrase) => Opening::Passphrase(passphrase.clone().unwrap_or_default()),
    }
}

fn wrappings(request: &CreateTarget) -> Vec<Wrapping> {
    let passphrase = request.passphrase.clone().map(Wrapping::Passphrase);
    let recipient = request
        .recipient
        .as_ref()
        .map(|r| Wrapping::Recipient(r.trim().to_owned()));
    passphrase.into_iter().chain(recipient).collect()
}

/// A directory that copies can go to; one is made where none is, if that is asked for.
async fn directory(path: &str, make: bool) -> Result<(), CopiesError> {
    let refused = |e: std::io::Error, what: &str| {
        Status::invalid("local.path", format_args!("{path} cannot be {what}: {e}")).into()
    };
    let there = tokio::fs::metadata(path).await;
    match there {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Status::invalid("local.path", format_args!("{path} is no directory")).into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && make => {
            let mut builder = tokio::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(path).await.map_err(|e| refused(e, "made"))
        }
        Err(e) => Err(refused(e, "reached")),
    }
}
