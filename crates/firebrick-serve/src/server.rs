//! Places and their methods, and the life of the server.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Method, Request, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use firebrick_models::checkpoint::{GenerationConfig, Pretrained};
use firebrick_text::Renderer;
use serde_json::{Value, json};
use tracing::{Instrument as _, info, info_span};

use crate::answer::{Answer, Asked};
use crate::refusal::Refusal;
use crate::settings::random_seed;
use crate::{Engine, Limits, chat, completions};

/// The largest body of a request, in bytes.
const BODY: usize = 4 << 20;

/// What answers that have begun get to end in, once the server is to end.
const GRACE: Duration = Duration::from_secs(10);

/// One checkpoint, and the engine that answers with it.
#[derive(Debug)]
pub struct Server {
    pub(crate) engine: Engine,
    pub(crate) name: String,
    pub(crate) renderer: Renderer,
    pub(crate) generation: GenerationConfig,
    started: u64,
    fingerprint: String,
    /// What ids of answers begin with, and how many there were.
    nonce: u64,
    answers: AtomicU64,
}

impl Server {
    /// Starts the engine over a checkpoint.
    ///
    /// # Panics
    /// If there is no slot, or the system gives no thread.
    pub fn new(checkpoint: Pretrained, limits: Limits) -> Self {
        let Pretrained { name, model, config, renderer, generation } = checkpoint;
        let mut hasher = DefaultHasher::new();
        (&name, config.vocab, config.n_layer, config.d_model, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        let device = model.device();
        Self {
            engine: Engine::start(model, device, renderer.tokenizer().clone(), limits),
            name,
            renderer,
            generation,
            started: now(),
            fingerprint: format!("fp_{:010x}", hasher.finish() >> 24),
            nonce: random_seed(),
            answers: AtomicU64::new(0),
        }
    }

    /// What the model is called in requests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was started with, the context no longer than the model's.
    pub fn limits(&self) -> Limits {
        self.engine.limits()
    }

    /// # Errors
    /// If a request is for another model.
    pub(crate) fn check_model(&self, name: &str) -> Result<(), Refusal> {
        if name == self.name {
            return Ok(());
        }
        let message = format!("there is no model `{name}`; this server has `{}`", self.name);
        Err(Refusal::missing(StatusCode::NOT_FOUND, message).with_code("model_not_found"))
    }

    /// What an answer begins with.
    pub(crate) fn head(&self, prefix: &str, object: &str) -> Value {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        json!({
            "id": format!("{prefix}-{:016x}{number:08x}", self.nonce),
            "object": object,
            "created": now(),
            "model": self.name,
            "system_fingerprint": self.fingerprint,
        })
    }

    fn described(&self) -> Value {
        let context = self.limits().context;
        json!({
            "id": self.name, "object": "model", "created": self.started, "owned_by": "firebrick", "max_model_len": context
        })
    }
}

/// Answers requests until `shutdown` is there; answers that have begun get some seconds to end in.
///
/// # Errors
/// If the system gives no threads, or the listener cannot be used.
pub fn serve(
    server: Server,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = Arc::new(server);
    let places = router(Arc::clone(&server));
    let done = runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let ended = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&ended);
        let shutdown = async move {
            shutdown.await;
            told.notify_one();
        };
        tokio::select! {
            done = async { axum::serve(listener, places).with_graceful_shutdown(shutdown).await } => done,
            () = async { ended.notified().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    });
    // A connection that is still open holds the server: it is cut before the engine ends.
    runtime.shutdown_background();
    drop(server);
    done
}

/// Ctrl-C, or what else asks a process to end.
pub async fn interrupt() {
    let pressed = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let asked = async {
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => _ = signal.recv().await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! { () = pressed => {}, () = asked => {} }
    }
    #[cfg(not(unix))]
    pressed.await;
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/completions", post(async |State(server), request| answer(server, request, completions::ask).await))
        .route("/v1/chat/completions", post(async |State(server), request| answer(server, request, chat::ask).await))
        .fallback(async |method: Method, uri: Uri| {
            let message = format!("there is no {method} {}; see /v1/models", uri.path());
            Refusal::missing(StatusCode::NOT_FOUND, message)
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let message = format!("{} does not take {method}", uri.path());
            Refusal::missing(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(middleware::from_fn(log))
        .with_state(server)
}

/// Tells of a request once its answer begins: what was asked for, the status, and how long that took.
async fn log(request: Request<Body>, next: Next) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    async {
        let (start, asked) = (Instant::now(), format!("{} {}", request.method(), request.uri().path()));
        let response = next.run(request).await;
        let (status, seconds) = (response.status().as_u16(), start.elapsed().as_secs_f64());
        info!(status, seconds, "{asked}");
        response
    }
    .instrument(span)
    .await
}

async fn health(State(server): State<Arc<Server>>) -> Json<Value> {
    let (running, waiting) = server.engine.load();
    Json(json!({ "status": "ok", "running": running, "waiting": waiting }))
}

async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [server.described()] }))
}

async fn model(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Json<Value>, Refusal> {
    server.check_model(&name)?;
    Ok(Json(server.described()))
}

/// Reads a request, asks the engine and answers, at once or piece by piece.
async fn answer(
    server: Arc<Server>,
    request: Request<Body>,
    ask: fn(&Server, &[u8]) -> Result<Asked, Refusal>,
) -> Result<Response, Refusal> {
    let body = body(request).await?;
    let theirs = Arc::clone(&server);
    // Templates and tokenizers may take a while: other connections must not wait for them.
    let asked = tokio::task::spawn_blocking(move || ask(&theirs, &body)).await;
    let asked = asked.map_err(|_| Refusal::failed("the request made the server fail; it was not answered"))??;
    let answer = Answer::new(server, asked);
    if answer.is_stream() {
        Ok(answer.stream().into_response())
    } else {
        answer.whole().await.map(Json).map(Json::into_response)
    }
}

/// The bytes of a request, unless they are too many.
async fn body(request: Request<Body>) -> Result<axum::body::Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body has more than {BODY} bytes; send less");
        Refusal::missing(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY as u64) {
        return Err(too_large());
    }
    // Without a length the limit is met while reading; a connection that breaks meanwhile gets no answer anyway.
    to_bytes(request.into_body(), BODY).await.map_err(|_| too_large())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
