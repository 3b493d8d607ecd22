//! Lists `config/providers/*.toml`, so that a new provider is a new file and nothing else.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&root).join("config/providers");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("config/providers is there")
        .map(|file| file.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    let mut code = String::from(
        "/// Name and text of every provider file that is compiled in, in order of name.\npub const fn shipped_providers() -> &'static [(&'static str, &'static str)] {\n    &[\n",
    );
    for path in files {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path
            .file_stem()
            .expect("a file name")
            .to_string_lossy()
            .into_owned();
        writeln!(
            code,
            "        ({name:?}, include_str!({:?})),",
            path.display().to_string()
        )
        .expect("a String takes text");
    }
    code.push_str("    ]\n}\n");
    let out =
        Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("shipped_providers.rs");
    fs::write(out, code).expect("the build folder takes files");
}
