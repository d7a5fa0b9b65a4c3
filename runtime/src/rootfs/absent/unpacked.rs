//! In the place of images that have been unpacked, without the feature `images`: no root is one.

use std::path::Path;

use crate::spec::Spec;

/// There is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unpacked {}

impl Unpacked {
    pub(crate) fn spec(&self, _: &'static Spec) -> Option<&'static Spec> {
        match *self {}
    }

    pub(crate) fn owners(&self) -> Vec<(&Path, (u32, u32), u32)> {
        match *self {}
    }
}
