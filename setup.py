"Hands to setuptools what pyproject.toml declares dynamic, from settings.ini."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

cfg = ConfigParser()
cfg.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
cfg = cfg['DEFAULT']
statuses = {'3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}

setup(author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'].split(),
      install_requires=cfg['requirements'].split(), extras_require={'dev': cfg['dev_requirements'].split()},
      classifiers=[f"Development Status :: {statuses[cfg['status']]}", 'Programming Language :: Python :: 3 :: Only',
                   *(f'Intended Audience :: {a.strip()}' for a in cfg['audience'].split(','))])
