//! Every Rust error becomes a Python exception here, in one match.

use pyo3::exceptions::{PyException, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use quantrs_blocks::BlockError;
use quantrs_convert::{ConvertError, PackError};
use quantrs_engine::EngineError;
use quantrs_formats::FormatError;
use quantrs_kernels::KernelError;
use quantrs_simd::LevelError;
use quantrs_solvers::SolverError;

struct Classes {
    base: Py<PyType>,
    input: Py<PyType>,
    file: Py<PyType>,
    format: Py<PyType>,
    cancelled: Py<PyType>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

fn classes(py: Python<'_>) -> PyResult<&Classes> {
    CLASSES.get_or_try_init(py, || {
        let exception = py.get_type::<PyException>();
        let value_error = py.get_type::<PyValueError>();
        let os_error = py.get_type::<PyOSError>();
        let new = |name: &str, doc: &str, bases: &[&Bound<'_, PyType>]| -> PyResult<Py<PyType>> {
            let dict = PyDict::new(py);
            dict.set_item("__module__", "quantrs._native")?;
            dict.set_item("__doc__", doc)?;
            let class = py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, dict))?;
            Ok(class.cast_into::<PyType>()?.unbind())
        };
        let base = new("QuantrsError", "Base of every error that quantrs raises itself.", &[&exception])?;
        let b = base.bind(py);
        Ok(Classes {
            input: new("InputError", "The values, types or shapes handed in cannot be used.", &[b, &value_error])?,
            file: new(
                "FileError",
                "Reading or writing a file failed; the operating system's reason is in the message.",
                &[b, &os_error],
            )?,
            format: new(
                "FormatError",
                "A file is not what it says: the message names offset and field.",
                &[b, &value_error],
            )?,
            cancelled: new("Cancelled", "`Progress.cancel` was called.", &[b])?,
            base,
        })
    })
}

/// Put the exception classes into the module.
pub(crate) fn add_classes(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let Classes { base, input, file, format, cancelled } = classes(py)?;
    for class in [base, input, file, format, cancelled] {
        let class = class.bind(py);
        m.add(class.name()?, class)?;
    }
    Ok(())
}

/// Any error of the Rust crates, or a sentence about an argument.
#[derive(Debug)]
pub(crate) enum Error {
    Input(String),
    Block(BlockError),
    Format(FormatError),
    Convert(ConvertError),
    Pack(PackError),
    Level(LevelError),
    Kernel(KernelError),
    Engine(EngineError),
    Solver(SolverError),
}

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        Python::attach(|py| {
            let classes = match classes(py) {
                Ok(classes) => classes,
                Err(error) => return error,
            };
            let of_format = |error: &FormatError| match error {
                FormatError::Io { .. } | FormatError::NoSpace { .. } => &classes.file,
                FormatError::Edit { .. } => &classes.input,
                _ => &classes.format,
            };
            let (class, message) = match &error {
                Error::Input(message) => (&classes.input, message.clone()),
                Error::Block(error) => (&classes.input, error.to_string()),
                Error::Pack(error) => (&classes.input, error.to_string()),
                Error::Level(error) => (&classes.input, error.to_string()),
                Error::Kernel(error) => (&classes.input, error.to_string()),
                Error::Solver(error) => (&classes.input, error.to_string()),
                Error::Format(error) => (of_format(error), error.to_string()),
                Error::Convert(error) | Error::Engine(EngineError::Read(error)) => {
                    let class = match error {
                        ConvertError::Values { .. } => &classes.input,
                        ConvertError::Packed { .. } => &classes.format,
                        ConvertError::File(format) => of_format(format),
                        ConvertError::Cancelled => &classes.cancelled,
                    };
                    (class, error.to_string())
                }
                Error::Engine(error) => {
                    let class = match error {
                        EngineError::Map { .. } | EngineError::Read(_) => &classes.file,
                        EngineError::Graph { .. }
                        | EngineError::KvType { .. }
                        | EngineError::ContextFull { .. }
                        | EngineError::Token { .. }
                        | EngineError::Size { .. } => &classes.input,
                        EngineError::MissingTensor { .. }
                        | EngineError::Shape { .. }
                        | EngineError::Type { .. }
                        | EngineError::Tensor { .. }
                        | EngineError::UnusedTensors { .. }
                        | EngineError::BadValue { .. }
                        | EngineError::NotFinite { .. } => &classes.format,
                    };
                    (class, error.to_string())
                }
            };
            PyErr::from_type(class.bind(py).clone(), (message,))
        })
    }
}

macro_rules! from {
    ($($type:ident => $variant:ident),*) => {$(
        impl From<$type> for Error {
            fn from(error: $type) -> Error {
                Error::$variant(error)
            }
        }
    )*};
}

from!(
    BlockError => Block,
    FormatError => Format,
    ConvertError => Convert,
    PackError => Pack,
    LevelError => Level,
    KernelError => Kernel,
    EngineError => Engine,
    SolverError => Solver
);
