//! What the description says of answers, and whether they are so.

use std::net::SocketAddr;

use serde_json::Value;

use crate::house::{Told, exchange};

/// `/openapi.json` of a front door.
pub(crate) struct Description(Value);

impl Description {
    pub(crate) async fn read(address: SocketAddr) -> Self {
        let asked = b"GET /openapi.json HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n";
        Self(exchange(address, asked).await.expect(200))
    }

    /// Fails if a reply is not one that the description allows.
    #[track_caller]
    pub(crate) fn check(&self, method: &str, path: &str, told: &Told) {
        let path = path.split('?').next().unwrap();
        let Some(operation) = self.operation(method, path) else {
            assert!(
                matches!(told.status, 404 | 405 | 401 | 200),
                "{method} {path} is not described: {told:?}"
            );
            return;
        };
        let responses = &operation["responses"];
        let family = format!("{}XX", told.status / 100);
        let exact = &responses[told.status.to_string()];
        let response = if exact.is_null() { &responses[family] } else { exact };
        assert!(!response.is_null(), "{method} {path}: {} is not described", told.status);
        let Some(content) = response["content"].as_object() else { return };
        let kind = told.header("content-type").unwrap_or_default();
        if kind == "text/event-stream" {
            return;
        }
        let media = content.get(kind).unwrap_or_else(|| panic!("{method} {path}: {kind} is not described"));
        if let Err(why) = self.fits(&media["schema"], &told.body) {
            panic!("{method} {path}: {why}: {}", told.body);
        }
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            let is_same = |(template, part): (&&str, &&str)| template.starts_with('{') || template == part;
            template.len() == path.len() && template.iter().zip(&path).all(is_same)
        };
        let paths = self.0["paths"].as_object().unwrap();
        let (_, methods) = paths.iter().find(|(template, _)| fits(template))?;
        methods.get(method.to_lowercase())
    }

    /// Type, properties, required ones, items, enumerations: what the description uses.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return self.fits(&self.0["components"]["schemas"][name], value);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.fits(part, value)?;
        }
        let is_type = |name: &str| match name {
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            other => panic!("a type that this does not know: {other}"),
        };
        let is_right = match &schema["type"] {
            Value::String(name) => is_type(name),
            Value::Array(names) => names.iter().any(|name| is_type(name.as_str().unwrap())),
            _ => true,
        };
        if !is_right {
            return Err(format!("{value} is no {}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
            return Err(format!("{value} is none of {}", schema["enum"]));
        }
        for item in value.as_array().into_iter().flatten() {
            self.fits(&schema["items"], item)?;
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                return Err(format!("{name} is missing"));
            }
        }
        let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
        for (name, field) in object {
            let schema = properties.get(name).ok_or_else(|| format!("{name} is not described"))?;
            self.fits(schema, field).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}
