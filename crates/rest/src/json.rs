//! Bodies of requests: bounded in size, depth and time before anything reads them.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::config::RestLimits;
use crate::problem::Problem;

/// Reads a body as JSON of one form.
pub(crate) async fn read<T: DeserializeOwned>(
    request: Request,
    limits: &RestLimits,
) -> Result<T, Box<Problem>> {
    let is_json = request.headers().get(header::CONTENT_TYPE).is_some_and(is_json);
    if !is_json {
        let detail = "Send application/json, and say so in Content-Type.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "CONTENT_TYPE", detail));
    }
    parse(&whole(request.into_body(), limits).await?, limits.depth_max)
}

/// The same, where a request without a body says nothing.
pub(crate) async fn read_or_default<T: DeserializeOwned + Default>(
    request: Request,
    limits: &RestLimits,
) -> Result<T, Box<Problem>> {
    if request.headers().contains_key(header::CONTENT_TYPE) {
        return read(request, limits).await;
    }
    let body = whole(request.into_body(), limits).await?;
    if body.is_empty() { Ok(T::default()) } else { parse(&body, limits.depth_max) }
}

async fn whole(body: Body, limits: &RestLimits) -> Result<Vec<u8>, Box<Problem>> {
    let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "SLOW_BODY", "The body took too long.");
    let large = |_| {
        let detail = "The body is too long, or ended early.";
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail)
    };
    let read = timeout(limits.body_within, to_bytes(body, limits.body_bytes_max));
    Ok(read.await.map_err(slow)?.map_err(large)?.into())
}

fn is_json(value: &axum::http::HeaderValue) -> bool {
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(body: &[u8], depth_max: usize) -> Result<T, Box<Problem>> {
    if depth(body) > depth_max {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "JSON", "The JSON is nested too deeply."));
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "JSON", format!("The JSON does not read: {error}."))
    })
}

/// How deep brackets are nested, of whatever bytes, without reading them as JSON.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_brackets_outside_of_texts() {
        for (text, expect) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[1,{"b":2}],"c":[]}"#, 3),
            (r#"["[[[["]"#, 1),
            (r#"["\"[[[["]"#, 1),
            ("]]]][", 1),
        ] {
            assert_eq!(depth(text.as_bytes()), expect, "{text}");
        }
        assert_eq!(depth(&[b'['; 100_000]), 100_000);
    }
}
