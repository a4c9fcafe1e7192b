//! Writes the generated parts of the manual; see `make docs`.

fn main() -> std::io::Result<()> {
    std::fs::write("docs/configuration.md", lkfk::internals::manual::configuration())?;
    std::fs::write("docs/statistics.md", lkfk::internals::manual::statistics())
}
