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

  // on a phone each row of a table with much text is a card, whose cells say which column they are
  const long = t => t.tHead && t.rows[0].cells.length > 2 && t.textContent.length > 15*t.querySelectorAll('td').length
  for (const table of all('article .table-wrapper:not(dl.py *) > table')) if (long(table)) {
    const heads = [...table.tHead.rows[0].cells].map(e => e.textContent.trim())
    table.parentElement.classList.add('cards')
    for (const row of table.tBodies[0].rows)
      [...row.cells].forEach((cell, i) => { cell.dataset.label = heads[i] ?? '' })
  }

  // what the theme and pandas leave out, for screen readers
  for (const e of all('.caption[role=heading]')) e.ariaLevel = 2
  for (const e of all('details > summary')) e.removeAttribute('aria-label') // what it says is in its text
  document.querySelector('.sidebar-drawer')?.setAttribute('aria-label', 'Pages')
  document.querySelector('.toc-drawer')?.setAttribute('aria-label', 'On this page')
  for (const e of all('article thead th')) if (!e.textContent.trim()) e.replaceWith(document.createElement('td'))

  // names break at their joints, so that their columns can be narrow; custom.css keeps the first column whole
  const joints = e => { e.innerHTML = e.innerHTML.replace(/[_.(/](?=.)/g, '$&<wbr>') }
  for (const e of all('article .table-wrapper:not(dl.py *) td code :is(.pre, .pre *)')) if (!e.children.length) joints(e)
  for (const e of all('table.dataframe :is(th, td)'))
    if (!e.children.length && e.textContent.includes('_')) e.innerHTML = e.innerHTML.replaceAll('_', '_<wbr>')

  // columns of words begin at the left, those of numbers end at the right
  const number = /^[-+\s\d.,eE%()[\]*±]*$|^[-+]?(nan|inf|none|true|false)$|\d.* (to|of) .*\d/i
  for (const table of all('.cell_output table.dataframe')) {
    const rows = [...table.tBodies[0]?.rows ?? []].map(r => [...r.cells])
    const heads = [...table.tHead?.rows ?? []].filter(r => r.cells.length === rows[0]?.length)
    for (let i = 0; i < (rows[0]?.length ?? 0); i++) {
      const column = rows.map(r => r[i]).filter(Boolean)
      if (rows.some(r => r.length !== rows[0].length) || column.every(e => number.test(e.textContent.trim()))) continue
      for (const e of [...column, ...heads.map(r => r.cells[i])]) e.style.textAlign = 'left'
    }
  }

  // what scrolls sideways can be scrolled with the keyboard
  const reach = () => {
    for (const e of all('article :is(pre, .table-wrapper, .text_html)'))
      if (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight) e.tabIndex = 0
      else e.removeAttribute('tabindex')
  }
  reach()
  addEventListener('resize', reach)
})
