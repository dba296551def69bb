//! A row of the catalogue: one fault, and what proves that it is handled.

use crate::scene::Scene;

use super::stage::Stage;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Short name that does not change; a letter for what is hit, and a number.
    pub(super) id: &'static str,
    /// What happens.
    pub(super) fault: &'static str,
    /// The exit code, or what there is instead of one.
    pub(super) outcome: &'static str,
    /// What the message names, or what is true instead.
    pub(super) names: &'static str,
    pub(super) proof: Proof,
}

/// What proves a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// A case that the driver runs.
    Case(Case),
    /// A test of its own in this directory, because the fault needs the right moment.
    Scene(fn()),
    /// Tests elsewhere: file and function, with a blank between them.
    Tests(&'static [&'static str]),
    /// Why there is nothing to prove, or not yet.
    None(&'static str),
}

/// A fault that is made before a command starts, and what the command does then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Makes the fault, or says why this machine cannot.
    pub(super) make: fn(&Stage) -> Result<Fault, String>,
    /// Commands, run one after the other.
    pub(super) runs: &'static [Run],
    pub(super) after: After,
}

/// A command under a fault. Words in braces in arguments and names are those of [`Fault::words`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Separated by blanks.
    pub(super) command: &'static str,
    pub(super) code: i32,
    /// What the line of the error has to say; for findings of `verify` and `scrub`, all that is printed.
    pub(super) names: &'static [&'static str],
    /// Whether it must say what to do.
    pub(super) has_hint: bool,
}

/// What is true once the fault is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// All revisions restore.
    Whole,
    /// Each revision restores, or is said to be damaged; the next backup has all of its bytes again.
    Wounded,
}

/// Takes a fault back.
pub(super) type Undo = Box<dyn FnOnce(&Scene)>;

/// A fault that was made.
#[derive(Default)]
pub(super) struct Fault {
    /// Words for arguments and names, such as the id of the pack that was hit.
    pub(super) words: Vec<(&'static str, String)>,
    /// Put before the program: what makes its calls fail.
    pub(super) wrapper: Vec<String>,
    /// Takes the fault away again.
    pub(super) undo: Option<Undo>,
    /// Kept as long as the fault lasts, such as something that is mounted.
    pub(super) guard: Option<Box<dyn std::any::Any>>,
}

impl Fault {
    /// A fault with one word for names.
    pub(super) fn naming(word: &'static str, text: impl Into<String>) -> Self {
        Self { words: vec![(word, text.into())], ..Self::default() }
    }

    /// The same fault, taken away by this at the end.
    pub(super) fn undone_by(self, undo: impl FnOnce(&Scene) + 'static) -> Self {
        Self { undo: Some(Box::new(undo)), ..self }
    }

    /// Makes calls of commands fail: what `strace` is told.
    pub(super) fn injected(arguments: &[&str]) -> Self {
        let mut wrapper: Vec<String> =
            ["strace", "-f", "-qqq", "-o", "trace"].map(str::to_owned).into();
        wrapper.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self { wrapper, ..Self::default() }
    }

    /// Returns a text with the words of the fault in it.
    pub(super) fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| {
            text.replace(&format!("{{{word}}}"), value)
        })
    }
}

/// A command that ends with this code and names this, with a hint.
pub(super) const fn hinted(
    command: &'static str,
    code: i32,
    names: &'static [&'static str],
) -> Run {
    Run { command, code, names, has_hint: true }
}

/// A command that ends with this code and names this.
pub(super) const fn run(command: &'static str, code: i32, names: &'static [&'static str]) -> Run {
    Run { command, code, names, has_hint: false }
}

/// A case after which all revisions are there.
pub(super) const fn whole(
    make: fn(&Stage) -> Result<Fault, String>,
    runs: &'static [Run],
) -> Proof {
    Proof::Case(Case { make, runs, after: After::Whole })
}

/// A case that takes bytes from the store.
pub(super) const fn wounded(
    make: fn(&Stage) -> Result<Fault, String>,
    runs: &'static [Run],
) -> Proof {
    Proof::Case(Case { make, runs, after: After::Wounded })
}

/// A row.
pub(super) const fn row(
    id: &'static str,
    fault: &'static str,
    outcome: &'static str,
    names: &'static str,
    proof: Proof,
) -> Row {
    Row { id, fault, outcome, names, proof }
}
