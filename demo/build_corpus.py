"""Build the demo corpus from Debian packages: `python demo/build_corpus.py OUT_DIR`.

Needs a Debian machine (apt-get and dpkg, no root) and the project's environment. The same package files, encoder
libraries and processor family give the same bytes.
"""

# The package lies beside this script, where the interpreter looks and a type checker in the project's root does not.
from corpus_builder.build import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    main()
