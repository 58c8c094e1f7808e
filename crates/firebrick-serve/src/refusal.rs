//! Errors in OpenAI's form.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Error;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Refusal {
    /// The client asked for something that cannot be.
    pub(crate) fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            kind: "invalid_request_error",
            param: param.map(str::to_owned),
            code: None,
        }
    }

    /// There is no such place or method.
    pub(crate) fn missing(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, ..Self::invalid(None, message) }
    }

    /// The server is at fault.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "server_error", ..Self::invalid(None, message) }
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The engine does not take what was made of the parameter.
    pub(crate) fn of(error: &Error, param: &str) -> Self {
        match error {
            Error::Full { .. } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "requests",
                ..Self::invalid(None, error.to_string()).with_code("rate_limit_exceeded")
            },
            Error::Closed => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Self::failed("the server is being shut down; try again later")
            },
            Error::Sampling(firebrick_sampling::Error::Setting { name, .. }) => {
                Self::invalid(Some(name), error.to_string())
            }
            Error::Sampling(_) => Self::invalid(Some(param), error.to_string()),
        }
    }

    /// What the client reads.
    pub(crate) fn body(&self) -> Value {
        let Self { message, kind, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
