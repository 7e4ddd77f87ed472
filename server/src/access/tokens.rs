//! Tokens of the caller's.

use super::secret::Secret;
use super::{Access, Caller, Result};
use crate::db::list::Listing;
use crate::db::{access as rows, now};
use shared::access::{CreateToken, NewToken, Token};
use shared::api::{ListQuery, TokenPage};
use shared::{Status, TokenId};

/// A new token, and the hash that is kept of it.
pub(super) fn new_token(request: CreateToken) -> Result<(NewToken, String)> {
    let secret = Secret::new("ofs_")?;
    let token = Token {
        id: TokenId(uuid::Uuid::now_v7()),
        name: request.name,
        create_time: now(),
        last_used_time: None,
        role: request.role,
        expire_time: request.expire_time,
    };
    if token.expire_time.is_some_and(|end| end <= token.create_time) {
        return Err(Status::invalid("expireTime", "it is not in the future").into());
    }
    let kept = secret.hash();
    Ok((
        NewToken {
            token,
            secret: secret.expose().to_owned(),
        },
        kept,
    ))
}

impl Access {
    /// The caller's tokens.
    pub async fn list_tokens(&self, caller: &Caller, query: &ListQuery) -> Result<TokenPage> {
        let listing = Listing::parse(query, rows::TOKEN_FIELDS, "name")?;
        let page = rows::list_tokens(&self.db, caller.user.id, listing).await?;
        Ok(TokenPage {
            tokens: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// Makes a token for the caller.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<NewToken> {
        caller.must_be_whole()?;
        let role = match &request.role {
            None => None,
            Some(name) => Some(self.role(name.as_str()).await?.id),
        };
        let (new, kept) = new_token(request)?;
        let (token, user) = (new.token.clone(), caller.user.id);
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    rows::insert_token(tx.conn(), &token, role, user, &kept).await?;
                    tx.changed(shared::feed::Noun::Token, token.id, false);
                    Ok(())
                })
            })
            .await?;
        Ok(new)
    }

    /// Takes a token of the caller's back.
    pub async fn delete_token(&self, caller: &Caller, id: &str) -> Result<()> {
        caller.must_be_whole()?;
        let (user, id, now) = (caller.user.id, id.to_owned(), now());
        self.db
            .write(move |tx| Box::pin(async move { rows::delete_token(tx, user, &id, now).await }))
            .await?;
        Ok(())
    }
}
