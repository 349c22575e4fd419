// A browser fetches no text from file://, so the local site's search lists titles only
if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

document.addEventListener('DOMContentLoaded', () => {
  const all = q => document.querySelectorAll(q)

  // a figure fills the window when it is clicked, until the next click or Escape
  const large = document.body.appendChild(document.createElement('dialog'))
  large.className = 'figure'
  large.onclick = () => large.close()
  large.onkeydown = e => { if (e.key === 'Escape') large.close() } // Sphinx's own use of the key stops the browser's
  for (const img of all('article .cell_output img')) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'enlarge' })
    button.title = 'Enlarge'
    img.replaceWith(button)
    button.append(img)
    button.onclick = () => { large.replaceChildren(img.cloneNode()); large.showModal() }
  }

  // on a phone each row of these tables is a card, whose cells say which column they are
  for (const table of all('.tag_cards table')) {
    const heads = [...table.querySelectorAll('thead th')].map(e => e.textContent.trim())
    for (const row of table.tBodies[0].rows)
      [...row.cells].forEach((cell, i) => { cell.dataset.label = heads[i] ?? '' })
  }

  // what the theme and pandas leave out, for screen readers
  for (const e of all('.caption[role=heading]')) e.ariaLevel = 2
  for (const e of all('details > summary')) e.removeAttribute('aria-label') // what it says is in its text
  document.querySelector('.sidebar-drawer')?.setAttribute('aria-label', 'Pages')
  document.querySelector('.toc-drawer')?.setAttribute('aria-label', 'On this page')
  for (const e of all('article thead th')) if (!e.textContent.trim()) e.replaceWith(document.createElement('td'))

  // names break after an underscore, so that their columns can be narrow
  for (const e of all('table.dataframe :is(th, td)'))
    if (!e.children.length && e.textContent.includes('_')) e.innerHTML = e.innerHTML.replaceAll('_', '_<wbr>')

  // what scrolls sideways can be scrolled with the keyboard
  const reach = () => {
    for (const e of all('article :is(pre, .table-wrapper, .text_html)'))
      if (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight) e.tabIndex = 0
      else e.removeAttribute('tabindex')
  }
  reach()
  addEventListener('resize', reach)
})
