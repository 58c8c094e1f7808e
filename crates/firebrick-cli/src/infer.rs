//! `firebrick infer …`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use burn::tensor::{Tensor, activation};
use clap::{Args, Subcommand, ValueEnum};
use firebrick_pipeline::Artifact as _;
use firebrick_vision::attribution;
use firebrick_vision::classifiers::{Classifier, CnnLayer};
use firebrick_vision::generative::{
    self, CompleteConfig, Composition, Evidence, Exemplars, GenerativeModel, ImputeConfig, MapConfig, Query,
    SweepConfig,
};

use crate::device::On;
use crate::picture;
use crate::say::{remark, say};
use firebrick_stages::vision::{Pictures, all};

pub(crate) const EXAMPLES: &str = "Examples:
  firebrick infer complete  --model runs/vision-mnist --image in.png --mask mask.png --out done.png
  firebrick infer complete  --model runs/vision-mnist --image in.png --out done.png   what lies over it is found
  firebrick infer explain   --model runs/vision-mnist --image in.png --label 4
  firebrick infer separate  --model runs/vision-mnist --image two.png --labels 3,8
  firebrick infer attribute --model runs/vision-mnist --image in.png --method grad-cam
A model is a run of `firebrick pipeline run vision`, or a folder that GenerativeModel::save wrote.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Fill in what a mask hides.
    #[command(after_help = EXAMPLES)]
    Complete(Complete),
    /// Say which class a picture is of, and draw what of it belongs to that class.
    #[command(after_help = EXAMPLES)]
    Explain(Explain),
    /// Take two instances apart that lie over each other.
    #[command(after_help = EXAMPLES)]
    Separate(Separate),
    /// Draw which pixels speak for a class.
    #[command(after_help = EXAMPLES)]
    Attribute(Attribute),
}

/// A model and a picture.
#[derive(Args)]
struct ModelAndImage {
    /// A run of the pipeline vision, or the folder of a generative model.
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// A PNG or JPEG file of the size that the model reads.
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// What transparent pixels of the picture lie over: black, white, or a gray from 0 to 255.
    #[arg(long, value_name = "GRAY", default_value = "black", value_parser = background)]
    background: u8,
    #[command(flatten)]
    on: On,
}

/// A gray by name or by number.
fn background(text: &str) -> Result<u8, String> {
    match text {
        "black" => Ok(0),
        "white" => Ok(255),
        number => number.parse().map_err(|_| "it is black, white or a number from 0 to 255".to_owned()),
    }
}

/// A model, and the picture that it is asked about.
struct Subject {
    model: GenerativeModel,
    /// The picture, all of it seen.
    evidence: Evidence,
    composited: bool,
}

#[derive(Args)]
pub(crate) struct Complete {
    #[command(flatten)]
    subject: ModelAndImage,
    /// A picture of the same size: what is white (128 of 255 and more) is filled in. All white leaves what the model likes best. Without
    /// it, what lies over the picture is found by the pictures that the run learnt from.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// The class to fill it in as; the likeliest where it is left out.
    #[arg(long)]
    label: Option<usize>,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    subject: ModelAndImage,
    /// The class to look for; the likeliest where it is left out.
    #[arg(long)]
    label: Option<usize>,
    /// Brightness from which on a rendered pixel belongs to its instance, 0 to 1.
    #[arg(long, value_name = "BRIGHTNESS", default_value_t = 0.3)]
    ink: f64,
    /// The folder that the pictures go to.
    #[arg(long, value_name = "DIR", default_value = "explained")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Separate {
    #[command(flatten)]
    subject: ModelAndImage,
    /// The two classes, with a comma between, or one of them; what is left out is told by the pictures that the run learnt from, or, of a
    /// model's folder alone, searched for by energy.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    labels: Option<Vec<usize>>,
    /// Labels of the classifier whose pairs are searched by energy.
    #[arg(long, value_name = "N", default_value_t = 10)]
    candidates: usize,
    /// How the two make the picture together.
    #[arg(long, default_value = "max")]
    compose: CompositionArg,
    /// Brightness from which on a rendered pixel belongs to its instance, 0 to 1.
    #[arg(long, value_name = "BRIGHTNESS", default_value_t = 0.3)]
    ink: f64,
    /// The folder that the pictures go to.
    #[arg(long, value_name = "DIR", default_value = "separated")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompositionArg {
    /// The brighter one.
    Max,
    /// The mean.
    Mean,
    /// The sum.
    Sum,
    /// The first before the second.
    Over,
}

impl From<CompositionArg> for Composition {
    fn from(composition: CompositionArg) -> Self {
        match composition {
            CompositionArg::Max => Self::Max,
            CompositionArg::Mean => Self::Mean,
            CompositionArg::Sum => Self::Sum,
            CompositionArg::Over => Self::Over,
        }
    }
}

#[derive(Args)]
pub(crate) struct Attribute {
    #[command(flatten)]
    subject: ModelAndImage,
    /// How.
    #[arg(long, default_value = "excitation")]
    method: Method,
    /// The class; the classifier's own answer where it is left out.
    #[arg(long)]
    label: Option<usize>,
    /// Points on the way from black, for integrated gradients.
    #[arg(long, value_name = "N", default_value_t = 32)]
    nodes: usize,
    /// Side of the square that is moved over the picture, in pixels, for occlusion.
    #[arg(long, value_name = "PIXELS", default_value_t = 5)]
    square: usize,
    /// Pixels from one place of it to the next.
    #[arg(long, value_name = "PIXELS", default_value_t = 2)]
    stride: usize,
    /// Where the map goes: red speaks for the class, blue against it.
    #[arg(long, value_name = "FILE", default_value = "attribution.png")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Gradient,
    GradientTimesInput,
    IntegratedGradients,
    Deconvnet,
    GuidedBackprop,
    Excitation,
    ContrastiveExcitation,
    GradCam,
    Occlusion,
}

/// # Errors
/// If the command cannot be carried out.
pub(crate) fn execute(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Complete(command) => complete(command)?,
        Command::Explain(command) => explain(command)?,
        Command::Separate(command) => separate(command)?,
        Command::Attribute(command) => attribute(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl ModelAndImage {
    fn open(&self) -> Result<Subject> {
        let model = open(&self.model, &self.on)?;
        let [height, width, channels] = model.network().image();
        let (images, composited) =
            picture::read(&self.image, [height, width, channels], self.background, &self.on.device)?;
        let visible = Tensor::ones([1, height, width, 1], &self.on.device);
        Ok(Subject { model, evidence: Evidence { images, visible }, composited })
    }

    /// Says what transparent pixels were taken for, where there are any.
    fn remark_on(&self, composited: bool) {
        if composited {
            let gray = match self.background {
                0 => "black".to_owned(),
                255 => "white".to_owned(),
                gray => format!("the gray {gray}"),
            };
            let name = self.image.display();
            remark(format_args!("{name} has transparent pixels: they lie over {gray}; --background sets another"));
        }
    }
}

/// The model of a folder, or of the run that the folder is.
fn open(dir: &Path, on: &On) -> Result<GenerativeModel> {
    let holds = |dir: &PathBuf| dir.join("model.json").is_file();
    let stages = fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let stages = stages.filter_map(|entry| Some(entry.ok()?.path().join("artifact")));
    let found = [dir.to_owned(), dir.join("artifact")].into_iter().chain(stages).find(holds);
    let Some(found) = found else {
        bail!(
            "{} holds no generative model; `firebrick pipeline run vision --out {}` makes one",
            dir.display(),
            dir.display()
        )
    };
    Ok(GenerativeModel::open(&found, &on.device)?)
}

/// What a label that was given asks.
fn query(label: Option<usize>) -> Query {
    label.map_or(Query::Free, |label| Query::Clamp(vec![label]))
}

/// The likeliest classes of log-probabilities `[1, classes]`, in words.
fn likeliest(log_scores: Tensor<2>, count: usize) -> String {
    let scores = log_scores.into_data().iter::<f64>().collect::<Vec<_>>();
    let mut order = (0..scores.len()).collect::<Vec<_>>();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let told = order.iter().take(count).map(|&class| format!("{class} ({:.3})", scores[class].exp()));
    told.collect::<Vec<_>>().join(", ")
}

fn classified(model: &GenerativeModel, images: Tensor<4>) -> Tensor<2> {
    activation::log_softmax(model.network().cnn().logits(images), 1)
}

/// The folder, made where it is not there.
fn folder(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

fn wrote(path: &Path, picture: Tensor<4>) -> Result<()> {
    picture::write(path, picture)?;
    say(format_args!("wrote {}", path.display()));
    Ok(())
}

fn complete(command: &Complete) -> Result<()> {
    /// The share of the pixels that is expected to be covered, and how much neighbours of a covered one count.
    const COVERED: f64 = 0.2;
    const COHERENCE: f64 = 1.0;
    let Subject { model, evidence: seen, composited } = command.subject.open()?;
    let [height, width, _] = model.network().image();
    let exemplars = remembered(&command.subject.model, &model)?;
    let visible = match (&command.mask, &exemplars) {
        (Some(mask), _) => {
            let (mask, _) = picture::read(mask, [height, width, 1], 0, &command.subject.on.device)
                .context("a mask lies over black: save it without alpha, white where the picture is to be filled in")?;
            mask.lower_elem(127.5 / 255.0).float()
        }
        (None, Some(exemplars)) => {
            generative::uncover_by_exemplars(exemplars, &seen, COVERED, COHERENCE).greater_elem(0.5).float()
        }
        (None, None) => bail!(
            "{} holds no pictures that tell what lies over this one; give --mask, or the folder of a whole run",
            command.subject.model.display()
        ),
    };
    let hidden = height * width - visible.clone().sum().into_scalar::<f32>() as usize;
    let evidence = Evidence { visible, ..seen };
    let query = query(command.label);
    let config = SweepConfig::default();
    let (labels, images) = match (exemplars, &query) {
        (Some(exemplars), query) => {
            let found = generative::impute(&model, &evidence, &exemplars, query, &ImputeConfig::default())?;
            (found.labels, found.images)
        }
        (None, Query::Free) => {
            let found = generative::complete(&model, &evidence, &CompleteConfig::default(), &config)?;
            (found.labels, found.images)
        }
        (None, clamped) => {
            let found = generative::sweep(&model, &evidence, clamped, &config)?;
            (found.labels, found.images)
        }
    };
    // Where none was given every class has a part in it, and the likeliest is told.
    let class = command.label.unwrap_or(labels[0]);
    say(format_args!("{hidden} of {} pixels filled in, as class {class}", height * width));
    say(format_args!("the classifier on the filled picture: {}", likeliest(classified(&model, images.clone()), 3)));
    command.subject.remark_on(composited);
    wrote(&command.out, images)
}

/// The pictures that a run learnt from, where the folder is a run's.
fn remembered(dir: &Path, model: &GenerativeModel) -> Result<Option<Exemplars>> {
    let stages = fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let stages = stages.filter_map(|entry| Some(entry.ok()?.path().join("artifact")));
    let Some(pictures) = stages.into_iter().find_map(|stage| Pictures::open(&stage).ok()) else { return Ok(None) };
    let train = pictures.train_test()?.train;
    if train.size() != model.network().image() {
        bail!("the pictures of {} are of another size than its model reads", dir.display());
    }
    Ok(Some(Exemplars::new(&all(&train, model), train.labels())))
}

fn explain(command: &Explain) -> Result<()> {
    let Subject { model, evidence, composited } = command.subject.open()?;
    let found = generative::sweep(&model, &evidence, &query(command.label), &SweepConfig::default())?;
    let label = found.labels[0];
    say(format_args!("class {label}"));
    say(format_args!("the classifier: {}", likeliest(classified(&model, evidence.images.clone()), 3)));
    say(format_args!("classifier and evidence together: {}", likeliest(found.log_scores, 3)));
    command.subject.remark_on(composited);
    folder(&command.out)?;
    let rendered = found.rendered.clamp(0.0, 1.0);
    let mask = rendered.clone().mean_dim(3).greater_elem(command.ink).float();
    wrote(&command.out.join("instance.png"), evidence.images * mask.clone())?;
    wrote(&command.out.join("mask.png"), mask)?;
    wrote(&command.out.join("rendered.png"), rendered)
}

fn separate(command: &Separate) -> Result<()> {
    let Subject { model, evidence, composited } = command.subject.open()?;
    let (sweep, config, compose) = (SweepConfig::default(), MapConfig::default(), command.compose.into());
    let found = match &command.labels {
        Some(labels) if labels.len() == 2 => {
            generative::descend(&model, &evidence, &[vec![labels[0]], vec![labels[1]]], compose, &sweep, &config)?
        }
        Some(labels) if labels.len() > 2 => {
            bail!("--labels takes one class or two, as 3 or 3,8; {} were given", labels.len())
        }
        _ if command.candidates < 2 => bail!("--candidates is {}; a pair needs 2", command.candidates),
        known => match remembered(&command.subject.model, &model)? {
            Some(exemplars) => {
                let pair = generative::overlapping_labels(&exemplars, &evidence, compose, known.as_deref())?;
                generative::descend(&model, &evidence, &pair, compose, &sweep, &config)?
            }
            None => {
                generative::separate(&model, &evidence, known.as_deref(), command.candidates, compose, &sweep, &config)?
            }
        },
    };
    let labels = [found.labels[0][0], found.labels[1][0]];
    say(format_args!("classes {} and {}, energy {:.1} nats", labels[0], labels[1], found.energy[0]));
    say(format_args!("the classifier: {}", likeliest(classified(&model, evidence.images), 3)));
    command.subject.remark_on(composited);
    folder(&command.out)?;
    for (instance, label) in labels.into_iter().enumerate() {
        let name = |what: &str| command.out.join(format!("{}-class-{label}{what}.png", instance + 1));
        wrote(&name(""), found.rendered[instance].clone())?;
        wrote(&name("-mask"), found.mask(instance, command.ink))?;
    }
    Ok(())
}

fn attribute(command: &Attribute) -> Result<()> {
    let Subject { model, evidence, composited } = command.subject.open()?;
    let network = model.network();
    let (cnn, images, [height, width, _]) = (network.cnn(), evidence.images, network.image());
    let scores = classified(&model, images.clone());
    let answer = scores.clone().argmax(1).into_data().iter::<i64>().next().expect("a picture") as usize;
    let label = command.label.unwrap_or(answer);
    if label >= network.classes() {
        bail!("--label {label}: the classifier has {} classes, counted from 0", network.classes());
    }
    let classes = [label];
    let map = match command.method {
        Method::Gradient => attribution::gradient(cnn, images, &classes),
        Method::GradientTimesInput => attribution::gradient_times_input(cnn, images, &classes),
        Method::IntegratedGradients => attribution::integrated_gradients(cnn, images, &classes, command.nodes.max(1)),
        Method::Deconvnet => attribution::deconvnet(cnn, images, &classes),
        Method::GuidedBackprop => attribution::guided_backprop(cnn, images, &classes),
        Method::Excitation => attribution::excitation_backprop(cnn, images, &classes),
        Method::ContrastiveExcitation => attribution::contrastive_excitation_backprop(cnn, images, &classes),
        Method::GradCam => {
            let layers = &cnn.config().layers;
            let last = layers.iter().rposition(|layer| matches!(layer, CnnLayer::Conv { .. }));
            // What the rectifier after the last convolution gives.
            let layer = last.expect("a model has a convolution") + 1;
            picture::stretched(attribution::grad_cam(cnn, images, &classes, layer), [height, width])
        }
        Method::Occlusion => {
            let [size, stride] = [command.square, command.stride].map(|pixels| pixels.max(1));
            attribution::occlusion(cnn, images, &classes, size.min(height).min(width), stride)
        }
    };
    say(format_args!("the classifier: {}; for class {label}", likeliest(scores, 3)));
    command.subject.remark_on(composited);
    wrote(&command.out, picture::heat(map))
}
