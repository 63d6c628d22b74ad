//! The command line of weightlift; see the library for the rest.

fn main() -> std::process::ExitCode {
    weightlift::main(std::env::args_os())
}
