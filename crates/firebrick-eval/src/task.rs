//! An evaluation of a language model.

use burn::module::Module;
use firebrick_tensor::Incremental;
use firebrick_types::Measured;

use crate::{Batching, Request, Response, respond};

/// What stops an evaluation, for instance an item that cannot be rendered.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// An evaluation of a language model: its items as requests, and what the responses say.
///
/// It is made for one text format: token ids are the only currency. [`evaluate`] runs it.
///
/// ```
/// use firebrick_eval::{Request, Response, Task, TaskError};
/// use firebrick_types::{Measured, TokenId};
///
/// /// How likely a model finds the right last tokens.
/// struct LastTokens {
///     items: Vec<(Vec<TokenId>, Vec<TokenId>)>,
/// }
///
/// impl Task for LastTokens {
///     fn name(&self) -> &str {
///         "last_tokens"
///     }
///
///     fn requests(&self) -> Result<Vec<Request>, TaskError> {
///         let request = |(context, continuation): &(Vec<_>, Vec<_>)| Request::LogProb {
///             context: context.clone(),
///             continuation: continuation.clone(),
///         };
///         Ok(self.items.iter().map(request).collect())
///     }
///
///     fn measure(&self, responses: &[Response]) -> Result<Vec<Measured>, TaskError> {
///         let sum = responses.iter().map(Response::log_prob).sum::<f64>();
///         Ok(vec![Measured::new("last_tokens/log_prob", sum / responses.len() as f64).unit("nats an item").higher_is_better()])
///     }
/// }
/// ```
pub trait Task {
    /// What it is called, for instance `hhh`.
    fn name(&self) -> &str;

    /// What is asked of the model.
    ///
    /// # Errors
    /// If an item cannot be asked.
    fn requests(&self) -> Result<Vec<Request>, TaskError>;

    /// What the responses, in the order of the requests, say.
    ///
    /// # Errors
    /// If nothing can be said of them, for instance because there is none.
    fn measure(&self, responses: &[Response]) -> Result<Vec<Measured>, TaskError>;
}

/// What a task measures of a model.
///
/// # Errors
/// If the task fails.
///
/// # Panics
/// As of [`respond`].
pub fn evaluate<M: Incremental + Module + Send>(
    task: &impl Task,
    model: &M,
    batching: &Batching,
) -> Result<Vec<Measured>, TaskError> {
    task.measure(&respond(model, &task.requests()?, batching))
}
