"`python -m superconv_fastai` is the `superconv` command"
from .cli import main

if __name__ == '__main__': main()
