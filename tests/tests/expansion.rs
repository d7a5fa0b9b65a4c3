//! The unit tests of the attribute, which lie beside its code.

#[path = "../../macros/src/above.rs"]
mod above;
#[path = "../../macros/src/args/mod.rs"]
mod args;
#[path = "../../macros/src/expand/mod.rs"]
mod expand;
#[path = "../../macros/src/function.rs"]
mod function;
#[path = "../../macros/src/items.rs"]
mod items;
#[path = "../../macros/src/lexer.rs"]
mod lexer;
