//! The API's description: the OpenAPI document, and the same as a page to read.

use super::Server;
use super::error::escape;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::Value;
use shared::access::Privilege;
use std::fmt::Write;
use utoipa_axum::routes;

use super::route::Api;

/// Its routes.
pub fn routes(api: Api) -> Api {
    api.route(Privilege::SelfManage, routes!(openapi))
        .route(Privilege::SelfManage, routes!(page))
        .route(Privilege::SelfManage, routes!(style))
}

/// The document and the page, written once.
pub struct Written {
    json: String,
    html: String,
}

impl Written {
    /// Of the API as it is served.
    pub fn new(document: &utoipa::openapi::OpenApi) -> Self {
        // The document is made of strings and maps: it always serialises.
        let value = serde_json::to_value(document).unwrap_or_default();
        Self {
            json: value.to_string(),
            html: html(&value),
        }
    }
}

/// This API as an OpenAPI document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "docs",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
async fn openapi(State(server): State<Server>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        server.docs().json.clone(),
    )
}

/// This API as a page to read.
#[utoipa::path(get, path = "/api/docs", tag = "docs",
    responses((status = 200, description = "A page", content_type = "text/html")))]
async fn page(State(server): State<Server>) -> impl IntoResponse {
    Html(server.docs().html.clone())
}

/// The style sheet of that page.
#[utoipa::path(get, path = "/api/docs/style.css", tag = "docs",
    responses((status = 200, description = "A style sheet", content_type = "text/css")))]
async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css")], STYLE)
}

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.92em}
h2{margin-top:2.5rem}
details{border-top:1px solid #8884;padding:.4rem 0}
summary{cursor:pointer;overflow-wrap:anywhere}
summary b{display:inline-block;min-width:4.5rem}
table{border-collapse:collapse;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.15rem .9rem .15rem 0}
a{color:inherit}
";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A schema in a few words, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return format!("<a href=\"#{0}\">{0}</a>", escape(name));
    }
    for (key, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(all) = schema[key].as_array() {
            return all.iter().map(kind).collect::<Vec<_>>().join(between);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words
            .iter()
            .map(|w| format!("<code>{}</code>", escape(w.as_str().unwrap_or("null"))));
        return words.collect::<Vec<_>>().join(" ");
    }
    let of = |name: &str| match name {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        "string" => escape(schema["format"].as_str().unwrap_or("string")),
        name => escape(name),
    };
    match &schema["type"] {
        Value::String(name) => of(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(of)
            .collect::<Vec<_>>()
            .join(" or "),
        _ => "anything".to_owned(),
    }
}

fn html(document: &Value) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Offshoot API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"/api/docs/style.css\"></head><body><main><h1>Offshoot API</h1>",
    );
    // Writing to a String cannot fail.
    _ = write!(
        out,
        "<p>{} <a href=\"/api/v1/openapi.json\">OpenAPI document</a> · <a href=\"/\">Console</a></p>\
         <p>Send <code>Authorization: Bearer &lt;token&gt;</code>.</p>",
        escape(text(&document["info"], "description"))
    );
    let mut tags: Vec<&str> = Vec::new();
    let operations: Vec<_> = entries(&document["paths"])
        .flat_map(|(path, item)| entries(item).map(move |(method, operation)| (path, method, operation)))
        .collect();
    for (_, _, operation) in &operations {
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    for tag in tags {
        _ = write!(out, "<h2>{}</h2>", escape(tag));
        for (path, method, operation) in operations.iter().filter(|(_, _, o)| o["tags"][0] == tag) {
            write_operation(&mut out, path, method, operation);
        }
    }
    out.push_str("<h2>Types</h2>");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        write_schema(&mut out, name, schema);
    }
    out.push_str("</main></body></html>");
    out
}

fn write_operation(out: &mut String, path: &str, method: &str, operation: &Value) {
    _ = write!(
        out,
        "<details><summary><b>{}</b> <code>{}</code> {}</summary><p>{}</p><p>Privilege <code>{}</code></p>",
        method.to_uppercase(),
        escape(path),
        escape(text(operation, "summary")),
        escape(text(operation, "description")),
        escape(text(operation, "x-privilege")),
    );
    if let Some(all) = operation["parameters"].as_array() {
        out.push_str("<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>");
        for p in all {
            _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(text(p, "name")),
                escape(text(p, "in")),
                kind(&p["schema"]),
                escape(text(p, "description")),
            );
        }
        out.push_str("</table>");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        _ = write!(out, "<p>Body: {}</p>", kind(body));
    }
    out.push_str("<table><tr><th>Answer</th><th>Type</th><th></th></tr>");
    for (code, response) in entries(&operation["responses"]) {
        let schema = &response["content"]["application/json"]["schema"];
        let kind = if schema.is_null() {
            String::new()
        } else {
            kind(schema)
        };
        let what = escape(text(response, "description"));
        _ = write!(
            out,
            "<tr><td>{}</td><td>{kind}</td><td>{what}</td></tr>",
            escape(code)
        );
    }
    out.push_str("</table></details>");
}

fn write_schema(out: &mut String, name: &str, schema: &Value) {
    _ = write!(
        out,
        "<details id=\"{0}\"><summary><b>{0}</b> {1}</summary>",
        escape(name),
        escape(text(schema, "description"))
    );
    if schema["properties"].is_object() {
        out.push_str("<table><tr><th>Field</th><th>Type</th><th></th></tr>");
        for (field, schema) in entries(&schema["properties"]) {
            _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escape(field),
                kind(schema),
                escape(text(schema, "description")),
            );
        }
        out.push_str("</table>");
    } else {
        _ = write!(out, "<p>{}</p>", kind(schema));
    }
    out.push_str("</details>");
}
