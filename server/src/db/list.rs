//! Lists: filter, order and page by allow-lists of columns.

use super::{Db, DbError, sql};
use shared::Status;
use shared::access::rights::Sees;
use shared::api::{DEFAULT_PAGE_SIZE, ListQuery, MAX_PAGE_SIZE};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

/// A field that a list may be filtered or ordered by.
pub struct Field {
    /// Its name in the API.
    pub name: &'static str,
    /// The SQL that it stands for.
    pub column: &'static str,
    /// What may be done with it.
    pub by: By,
}

/// What may be done with a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Filter by equality or a part, and order.
    Text,
    /// Filter by equality, and order by number.
    Number,
    /// Filter by equality only.
    Exact,
}

enum Term {
    Is(&'static str, String),
    Has(&'static str, String),
    /// One of the columns is one of a JSON list.
    Among(&'static [&'static str], String),
}

/// A list request that has been checked.
pub struct Listing {
    terms: Vec<Term>,
    order: &'static str,
    numeric: bool,
    descending: bool,
    after: Option<(String, String)>,
    size: usize,
    order_text: String,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Asks for the next page; empty on the last.
    pub next: String,
    /// How many there are on all pages.
    pub total: u64,
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn with<U>(self, items: Vec<U>) -> Page<U> {
        Page {
            items,
            next: self.next,
            total: self.total,
        }
    }
}

impl Listing {
    /// Checks a list request against the fields that there are; `order` is the order unless asked otherwise.
    pub fn parse(query: &ListQuery, fields: &'static [Field], order: &str) -> Result<Self, Status> {
        let size = query.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
        shared::can::limit::within("pageSize", u64::from(size), 1, u64::from(MAX_PAGE_SIZE), "items")?;
        let find = |what: &'static str, name: &str, may: fn(By) -> bool| {
            fields
                .iter()
                .find(|f| f.name == name && may(f.by))
                .ok_or_else(|| {
                    let known: Vec<_> = fields.iter().filter(|f| may(f.by)).map(|f| f.name).collect();
                    Status::invalid(what, format_args!("{name:?} is none of {}", known.join(", ")))
                })
        };
        let mut terms = Vec::new();
        for term in query.filter.as_deref().unwrap_or_default().split_whitespace() {
            let at = term.find(['=', ':']).ok_or_else(|| {
                Status::invalid(
                    "filter",
                    format_args!("{term:?} is neither field=value nor field:part"),
                )
            })?;
            let (name, value) = (&term[..at], term[at + 1..].to_owned());
            if term.as_bytes()[at] == b'=' {
                terms.push(Term::Is(find("filter", name, |_| true)?.column, value));
            } else {
                terms.push(Term::Has(
                    find("filter", name, |by| by == By::Text)?.column,
                    value,
                ));
            }
        }
        let order_text = query
            .order_by
            .as_deref()
            .filter(|o| !o.is_empty())
            .unwrap_or(order)
            .to_owned();
        let mut words = order_text.split_whitespace();
        let field = find("orderBy", words.next().unwrap_or_default(), |by| by != By::Exact)?;
        let descending = match (words.next(), words.next()) {
            (None | Some("asc"), None) => false,
            (Some("desc"), None) => true,
            _ => return Err(Status::invalid("orderBy", "a field, then perhaps desc")),
        };
        let mut listing = Self {
            terms,
            order: field.column,
            numeric: field.by == By::Number,
            descending,
            after: None,
            size: size as usize,
            order_text,
        };
        if let Some(token) = query.page_token.as_deref().filter(|t| !t.is_empty()) {
            listing.after = Some(listing.read_token(token)?);
        }
        Ok(listing)
    }

    /// Narrows the list to rows where a column has a value.
    pub fn only(&mut self, column: &'static str, value: impl ToString) {
        self.terms.push(Term::Is(column, value.to_string()));
    }

    /// Narrows the list to rows where one of the columns is a machine that the caller sees.
    pub fn among(&mut self, columns: &'static [&'static str], sees: &Sees) -> Result<(), DbError> {
        if let Sees::Only(ids) = sees {
            self.terms.push(Term::Among(columns, super::to_json(ids)?));
        }
        Ok(())
    }

    fn read_token(&self, token: &str) -> Result<(String, String), Status> {
        let bad = || Status::invalid("pageToken", "it is not one that this list gave for this order");
        let text = hex::decode(token)
            .ok()
            .and_then(|b| String::from_utf8(b).ok())
            .ok_or_else(bad)?;
        let (order, key, id): (String, String, String) = serde_json::from_str(&text).map_err(|_| bad())?;
        if order != self.order_text || (self.numeric && key.parse::<i64>().is_err()) {
            return Err(bad());
        }
        Ok((key, id))
    }

    fn filter(&self, query: &mut QueryBuilder<Sqlite>) {
        for term in &self.terms {
            match term {
                Term::Is(column, value) => {
                    query
                        .push(" AND ")
                        .push(*column)
                        .push(" = ")
                        .push_bind(value.clone());
                }
                Term::Has(column, value) => {
                    query
                        .push(" AND instr(")
                        .push(*column)
                        .push(", ")
                        .push_bind(value.clone())
                        .push(") > 0");
                }
                Term::Among(columns, list) => {
                    query.push(" AND (");
                    for (n, column) in columns.iter().enumerate() {
                        query
                            .push(if n == 0 { "" } else { " OR " })
                            .push(*column)
                            .push(" IN (SELECT value FROM json_each(")
                            .push_bind(list.clone())
                            .push("))");
                    }
                    query.push(")");
                }
            }
        }
    }

    /// Runs the list: `select` is `SELECT … FROM … WHERE <something>`, `from` the same `FROM … WHERE …` to count by,
    /// `id` the column that makes the order whole.
    pub async fn run<T>(
        &self,
        db: &Db,
        select: &'static str,
        from: &'static str,
        id: &'static str,
        read: impl Fn(&SqliteRow) -> Result<T, DbError>,
    ) -> Result<Page<T>, DbError> {
        let mut count = QueryBuilder::<Sqlite>::new("SELECT COUNT(*) AS n ");
        count.push(from);
        self.filter(&mut count);
        let total = count
            .build()
            .fetch_one(db.read())
            .await
            .map_err(sql("count a list"))?
            .get::<i64, _>("n");

        let mut query = QueryBuilder::<Sqlite>::new(select);
        self.filter(&mut query);
        if let Some((key, last)) = &self.after {
            let than = if self.descending { " < (" } else { " > (" };
            query
                .push(" AND (")
                .push(self.order)
                .push(", ")
                .push(id)
                .push(")")
                .push(than);
            match key.parse::<i64>() {
                Ok(key) if self.numeric => query.push_bind(key),
                _ => query.push_bind(key.clone()),
            };
            query.push(", ").push_bind(last.clone()).push(")");
        }
        let way = if self.descending { " DESC" } else { "" };
        query
            .push(" ORDER BY ")
            .push(self.order)
            .push(way)
            .push(", ")
            .push(id)
            .push(way);
        query.push(" LIMIT ").push_bind(self.size as i64 + 1);
        let rows = query
            .build()
            .fetch_all(db.read())
            .await
            .map_err(sql("read a list"))?;
        let more = rows.len() > self.size;
        let shown = &rows[..rows.len().min(self.size)];
        let items = shown.iter().map(&read).collect::<Result<Vec<_>, _>>()?;
        let next = match shown.last() {
            Some(row) if more => self.token(row)?,
            _ => String::new(),
        };
        Ok(Page {
            items,
            next,
            total: total as u64,
        })
    }

    /// The token behind a row: every list selects its order's value again as `order_text`/`order_number`.
    fn token(&self, row: &SqliteRow) -> Result<String, DbError> {
        let column = self.order.rsplit('.').next().unwrap_or(self.order);
        let key = if self.numeric {
            row.try_get::<i64, _>(column)
                .map_err(sql("read a list's order"))?
                .to_string()
        } else {
            row.try_get::<String, _>(column)
                .map_err(sql("read a list's order"))?
        };
        let number = |_| row.try_get::<i64, _>("id").map(|id| id.to_string());
        let id = row
            .try_get::<String, _>("id")
            .or_else(number)
            .map_err(sql("read a list's id"))?;
        Ok(hex::encode(super::to_json(&(&self.order_text, key, id))?))
    }
}
