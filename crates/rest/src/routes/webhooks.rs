//! `/v1/webhooks`: how a tenant's endpoints fare.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request};
use axum::http::StatusCode;

use super::{Answer, json};
use crate::cursor::Cursor;
use crate::guard::Visit;
use crate::json as body;
use crate::problem::Problem;
use crate::shapes::{Nothing, Replay, Webhook, WebhookState, Webhooks};
use crate::webhook::{Hook, OpenError};

/// Lists the endpoints that the tenant's events are carried to. They are set up by the operator.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", operation_id = "listWebhooks",
    responses(
        (status = 200, description = "The endpoints.", body = Webhooks),
        (status = "4XX", description = "The request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not available.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(Extension(visit): Extension<Visit>) -> Answer {
    let hooks = visit.shared.hooks.iter().filter(|hook| hook.is_of(&visit.desk));
    json(&Webhooks { webhooks: hooks.map(|hook| shown(hook)).collect() })
}

macro_rules! control_path {
    ($(#[$doc:meta])* $name:ident, $path:literal, $operation:literal) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "webhooks", operation_id = $operation, request_body = Option<Nothing>,
            params(("name" = String, Path, description = "The endpoint.")),
            responses(
                (status = 200, description = "How it fares now.", body = Webhook),
                (status = "4XX", description = "There is none, or the request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
                (status = "5XX", description = "Nothing was changed.", body = crate::problem::Problem, content_type = "application/problem+json"),
            )
        )]
        pub(super) async fn $name(
            Extension(visit): Extension<Visit>,
            Path(name): Path<String>,
            request: Request,
        ) -> Answer {
            let hook = find(&visit, &name)?;
            let Nothing {} = body::read_or_default(request, &visit.desk.limits).await?;
            hook.$name().await.map_err(|error| unkept(&error))?;
            json(&shown(&hook))
        }
    };
}

control_path!(
    /// Sends nothing more to an endpoint, until it is resumed.
    pause, "/v1/webhooks/{name}/pause", "pauseWebhook"
);

control_path!(
    /// Sends again, at once, from where it was.
    resume, "/v1/webhooks/{name}/resume", "resumeWebhook"
);

/// Sends everything behind a cursor, also what was sent before.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/replay", tag = "webhooks", operation_id = "replayWebhook", request_body = Replay,
    params(("name" = String, Path, description = "The endpoint.")),
    responses(
        (status = 200, description = "How it fares now.", body = Webhook),
        (status = "4XX", description = "There is none, or the request makes no sense.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Nothing was changed.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    request: Request,
) -> Answer {
    let hook = find(&visit, &name)?;
    let wanted: Replay = body::read(request, &visit.desk.limits).await?;
    let shards = usize::from(visit.desk.client().shards());
    let after = Cursor::parse(&wanted.after, shards)
        .ok_or_else(|| Problem::parameter("after", "Give a cursor that came with events before."))?;
    if !visit.desk.told(|told| told.cursor()).has_reached(after.seqs()) {
        let detail = "The cursor lies before the engine.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "CURSOR_AHEAD", detail).about("after"));
    }
    hook.replay(&after).await.map_err(|error| unkept(&error))?;
    json(&shown(&hook))
}

fn find(visit: &Visit, name: &str) -> Result<Arc<Hook>, Box<Problem>> {
    let found = visit.shared.hooks.iter().find(|hook| hook.is_of(&visit.desk) && hook.name == name);
    found.cloned().ok_or_else(|| Problem::not_found("WEBHOOK", "This tenant has no such webhook."))
}

fn unkept(error: &OpenError) -> Box<Problem> {
    tracing::error!(%error, "the state of a webhook cannot be kept");
    Problem::unavailable("The state of the webhook cannot be kept now; nothing was changed.")
}

fn shown(hook: &Hook) -> Webhook {
    let progress = hook.progress();
    Webhook {
        name: hook.name.clone(),
        url: hook.url.clone(),
        state: match (&progress.paused, progress.failures) {
            (Some(_), _) => WebhookState::Paused,
            (None, 0) => WebhookState::Active,
            (None, _) => WebhookState::Failing,
        },
        reason: progress.paused,
        cursor: progress.cursor,
        failures: progress.failures,
        failing_since_ms: progress.failing_since_ms,
        last_error: progress.last_error,
    }
}
