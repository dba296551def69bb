//! What happens at a panic. Inside of redb one is part of the plan: the index is then taken to be damaged, and made anew. libFuzzer's
//! own hook would end the program there, although the panic is caught.

use std::panic;
use std::sync::Once;

/// Replaces the hook by one that tells where a panic was, unless it was in redb. A panic that nobody catches ends the program
/// as before, because libFuzzer looks for it where it calls the target.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let is_in_redb = info.location().is_some_and(|place| place.file().contains("/redb-"));
            if !is_in_redb {
                eprintln!("{info}");
            }
        }));
    });
}
