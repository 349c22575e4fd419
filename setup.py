"Hands to setuptools what pyproject.toml declares dynamic, from settings.ini."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup
from setuptools.compat.py310 import tomllib

here = Path(__file__).parent
cfg = ConfigParser()
cfg.read(here/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
urls = tomllib.loads((here/'pyproject.toml').read_text(encoding='utf-8'))['project']['urls']
extras = {k: cfg[f'{k}_requirements'].split() for k in ('vision','test','dev')}
statuses = {'3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}
# PyPI shows README.md by itself: its figures need whole addresses
readme = (here/'README.md').read_text(encoding='utf-8').replace('](docs/', f"]({urls['Repository']}/raw/main/docs/")

setup(long_description=readme, long_description_content_type='text/markdown',
      author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'].split(),
      install_requires=cfg['requirements'].split(),
      extras_require={**extras, 'dev': extras['test']+extras['dev']},
      classifiers=[f"Development Status :: {statuses[cfg['status']]}",
                   *(f'Intended Audience :: {a.strip()}' for a in cfg['audience'].split(',')),
                   *(f'Programming Language :: Python :: {v}' for v in ('3 :: Only', *cfg['pythons'].split())),
                   *(f'Topic :: Scientific/Engineering{t}' for t in ('', ' :: Artificial Intelligence')),
                   'Operating System :: OS Independent'])
