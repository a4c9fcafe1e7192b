//! Writes the generated parts of the manual; see `make docs`.

fn main() -> std::io::Result<()> {
    std::fs::write("CONFIGURATION.md", lkfk::manual::configuration())?;
    std::fs::write("STATISTICS.md", lkfk::manual::statistics())
}
