//! The list of what a revision needs, whatever it is of: an image or a tree.
//!
//! Both have a root with pages below it and chunks below these, and both have a *content*: the bytes of the image, or those of all files of
//! the tree one after another. Whoever marks, verifies or counts chunks needs to know no more.

use std::ops::Range;

use crate::chunk_reader::{ChunkReader, damaged};
use crate::error::Result;
use crate::format::{
    FormatError, ObjectKind, Page, PageEntry, RevisionKind, Root, SpanRef, TreePage, TreeRoot,
};
use crate::id::ChunkId;
use crate::index::Location;

/// The root of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListRoot {
    Image(Root),
    Tree(TreeRoot),
}

/// A page of a revision, and which bytes of its content it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListPage {
    pub(crate) id: ChunkId,
    pub(crate) range: Range<u64>,
}

impl ListRoot {
    fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        if TreeRoot::begins(plain) {
            return TreeRoot::decode(plain).map(Self::Tree);
        }
        Root::decode(plain).map(Self::Image)
    }

    /// Returns what it is the root of.
    pub(crate) const fn kind(&self) -> RevisionKind {
        match self {
            Self::Image(_) => RevisionKind::Image,
            Self::Tree(_) => RevisionKind::Tree,
        }
    }

    /// Returns the pages, in the order of the content.
    pub(crate) fn pages(&self) -> Vec<ListPage> {
        match self {
            Self::Image(root) => {
                let page = |(span, reference): (usize, &SpanRef)| match reference {
                    SpanRef::Page(id) => Some(ListPage { id: *id, range: root.span_range(span) }),
                    SpanRef::Zero => None,
                };
                root.spans.iter().enumerate().filter_map(page).collect()
            }
            Self::Tree(root) => {
                root.places().map(|(range, page)| ListPage { id: page.id, range }).collect()
            }
        }
    }
}

impl ChunkReader {
    /// Reads and decodes the root of an image or a tree.
    pub(crate) fn read_list_root(&mut self, id: &ChunkId) -> Result<ListRoot> {
        let mut plain = Vec::new();
        self.read(ObjectKind::Root, id, None, &mut plain)?;
        ListRoot::decode(&plain).map_err(|source| damaged(id, None, source))
    }

    /// Reads a page of an image or a tree and returns its entries, which cover the page's part of the content.
    pub(crate) fn read_list_entries(
        &mut self,
        kind: RevisionKind,
        page: &ListPage,
        location: Option<Location>,
    ) -> Result<Vec<PageEntry>> {
        let len = page.range.end - page.range.start;
        match kind {
            RevisionKind::Image => Ok(self.read_page(&page.id, location, len)?.entries),
            RevisionKind::Tree => {
                let page = self.read_tree_page(&page.id, location, len)?;
                Ok(page.entries.into_iter().flat_map(|entry| entry.content).collect())
            }
        }
    }

    /// Reads and decodes the root of an image.
    pub(crate) fn read_root(&mut self, id: &ChunkId) -> Result<Root> {
        let mut plain = Vec::new();
        self.read(ObjectKind::Root, id, None, &mut plain)?;
        Root::decode(&plain).map_err(|source| damaged(id, None, source))
    }

    /// Reads and decodes the root of a tree.
    pub(crate) fn read_tree_root(&mut self, id: &ChunkId) -> Result<TreeRoot> {
        let mut plain = Vec::new();
        self.read(ObjectKind::Root, id, None, &mut plain)?;
        TreeRoot::decode(&plain).map_err(|source| damaged(id, None, source))
    }

    /// Reads and decodes a page that must cover `span_len` bytes.
    pub(crate) fn read_page(
        &mut self,
        id: &ChunkId,
        location: Option<Location>,
        span_len: u64,
    ) -> Result<Page> {
        let mut plain = Vec::new();
        self.read(ObjectKind::Page, id, location, &mut plain)?;
        let page = Page::decode(&plain).map_err(|source| damaged(id, None, source))?;
        if page.span_len() != span_len {
            let source = FormatError::Inconsistent { what: "the page covers another length" };
            return Err(damaged(id, None, source));
        }
        Ok(page)
    }

    /// Reads and decodes a page of a tree, whose files must have `content_len` bytes.
    pub(crate) fn read_tree_page(
        &mut self,
        id: &ChunkId,
        location: Option<Location>,
        content_len: u64,
    ) -> Result<TreePage> {
        let mut plain = Vec::new();
        self.read(ObjectKind::Page, id, location, &mut plain)?;
        let page = TreePage::decode(&plain).map_err(|source| damaged(id, None, source))?;
        if page.content_len() != content_len {
            let source =
                FormatError::Inconsistent { what: "the files of a tree page have another length" };
            return Err(damaged(id, None, source));
        }
        Ok(page)
    }
}
