"Sphinx's settings; docs/build.py prepares the pages and runs Sphinx"
from pathlib import Path
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup

cfg = get_config(Path(__file__).parent)
root = cfg.config_path
project = cfg.lib_name
release = cfg.version
html_title = f'{project} {release}'
copyright = 'the superconv_fastai authors'
licence = f'{cfg.git_url}/blob/{cfg.branch}/LICENSE'

extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx.ext.linkcode', 'sphinx.ext.githubpages']
source_suffix = {'.ipynb':'myst-nb', '.md':'myst-nb'}
def linkcode_resolve(domain, info): return NbdevLookup().code(info['fullname'])

# notebooks
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['amsmath', 'colon_fence', 'dollarmath']
myst_heading_anchors = 4

# symbols
add_module_names = False
toc_object_entries_show_parents = 'all'

# looks
html_theme = 'furo'
html_baseurl = cfg.doc_url
html_static_path = ['_static', str(root/'build/static')]
html_css_files = ['custom.css']
html_js_files = ['site.js']
html_logo = html_favicon = '_static/logo.svg'
html_show_sourcelink = html_copy_source = html_use_index = False
html_show_sphinx = False
templates_path = []
html_theme_options = {
    'top_of_page_buttons': [],
    'footer_icons': [dict(name='Repository', url=cfg.git_url, html='Repository', **{'class': ''}),
                     dict(name='Apache-2.0 licence', url=licence, html='Apache-2.0 licence', **{'class': ''})],
    'light_css_variables': {'color-brand-primary':'#0072B2', 'color-brand-content':'#0072B2'},
    'dark_css_variables': {'color-brand-primary':'#56B4E9', 'color-brand-content':'#56B4E9'}}
copybutton_selector = 'div.highlight pre:not(.cell_output pre)'
mathjax_path = 'mathjax/es5/tex-chtml-full.js'
