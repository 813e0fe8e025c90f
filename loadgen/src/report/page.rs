//! The frame of a page: style, sections, script. Used by the report and by comparisons.

use anyhow::Result;

use crate::charts::{Chart, escape};

/// A page that is being written.
pub(crate) struct Page {
    html: String,
    in_section: bool,
}

impl Page {
    /// Begins a page.
    pub(crate) fn new(title: &str) -> Page {
        let html = format!(
            "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
             <meta name=color-scheme content=\"light dark\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n\
             <body>\n<main>\n",
            escape(title),
            include_str!("style.css")
        );
        Page { html, in_section: false }
    }

    /// The page's heading; `about` is HTML.
    pub(crate) fn header(&mut self, title: &str, about: &str) {
        self.push(&format!("<header><h1>{}</h1><p class=about>{about}</p></header>", escape(title)));
    }

    /// Begins a section with a heading.
    pub(crate) fn section(&mut self, id: &str, title: &str) {
        if self.in_section {
            self.push("</section>");
        }
        self.in_section = true;
        self.push(&format!("<section id={id}><h2>{}</h2>", escape(title)));
    }

    /// Adds HTML.
    pub(crate) fn push(&mut self, html: &str) {
        self.html.push_str(html);
        self.html.push('\n');
    }

    /// The whole page.
    pub(crate) fn finish(mut self, version: &str) -> String {
        if self.in_section {
            self.push("</section>");
        }
        self.push(&format!(
            "<footer>zoometry {}. Everything on this page was computed from the files beside it.</footer>\n\
             </main>\n<script>\n{}</script>\n</body>\n</html>",
            escape(version),
            include_str!("script.js")
        ));
        self.html
    }
}

/// A chart with its caption.
pub(crate) fn figure(chart: &Chart) -> Result<String> {
    let svg = chart.svg()?;
    // Inside HTML an SVG needs no XML declaration.
    let svg = svg.split_once("<svg").map_or(svg.clone(), |(_, rest)| format!("<svg{rest}"));
    Ok(format!(
        "<figure id=\"chart-{}\"><div class=scroll>{svg}</div><figcaption>{}</figcaption></figure>",
        escape(&chart.name),
        escape(&chart.caption)
    ))
}
