// Opens every page of the built site in a browser and says what is wrong with it: `make docs-test`, which runs
// `python docs/build.py --test`.
//
//     node docs/browser_test.mjs '{"site": "_docs", "root": ".", "url", "repo", "playwright", "axe", "browser": ...}'
//
// First it breaks pages on purpose, in one way or more for each check, and stops if that is not noticed. Then each page
// is opened from a local web server, below a path as on GitHub Pages, in both schemes, at desktop and phone width, and
// once more from file://. Accessibility (contrast, alternative texts, headings and the like) is what axe-core checks.
import { createServer } from 'node:http'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { basename, extname, join, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const opts = JSON.parse(process.argv[2]), site = resolve(opts.site), start = Date.now()
const { chromium } = (await import(pathToFileURL(opts.playwright))).default
const files = readdirSync(site, { recursive: true }).filter(f => statSync(join(site, f)).isFile())
  .map(f => f.replaceAll('\\', '/')).sort()
const pages = files.filter(f => f.endsWith('.html'))
const desktop = { width: 1400, height: 1000 }, phone = { width: 390, height: 844 }

// ---- the site, from a web server that can serve a broken file, and from the disk ----

const mime = { '.html': 'text/html; charset=utf-8', '.css': 'text/css', '.js': 'text/javascript',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.woff': 'font/woff' }
const broken = {} // path: edit of its text
const server = createServer((req, res) => {
  const path = decodeURIComponent(new URL(req.url, 'http://x').pathname).replace(/^\/docs\//, '')
  if (!files.includes(path)) { res.writeHead(404); return res.end() }
  const body = readFileSync(join(site, path))
  res.writeHead(200, { 'content-type': mime[extname(path)] ?? 'application/octet-stream' })
  res.end(broken[path] ? broken[path](body.toString()) : body)
})
await new Promise(done => server.listen(0, '127.0.0.1', done))
const web = `http://127.0.0.1:${server.address().port}/docs/`, disk = pathToFileURL(site).href + '/'

const browser = await chromium.launch({ executablePath: opts.browser, args: ['--no-sandbox', '--disable-gpu',
  '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--no-first-run', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'] })

async function open(base, bad) {
  const context = await browser.newContext({ viewport: desktop, colorScheme: 'light', reducedMotion: 'reduce' })
  context.setDefaultTimeout(60_000) // the machine may be busy
  if (base === web) await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: web })
  await context.route('**/*', r => {
    const url = r.request().url()
    if (url.startsWith(base)) return r.continue()
    bad.push(['other host', url])
    return r.abort()
  })
  const page = await context.newPage()
  page.on('console', m => {
    if (['error', 'warning'].includes(m.type()) && !m.text().includes('net::ERR_')) bad.push(['console', m.text()])
  })
  page.on('pageerror', e => bad.push(['console', String(e)]))
  page.on('requestfailed', r => {
    const aborted = r.failure()?.errorText === 'net::ERR_ABORTED' // by the next page
    if (r.url().startsWith(base) && !aborted) bad.push(['missing file', r.url()])
  })
  page.on('response', r => { if (r.status() >= 400) bad.push(['missing file', r.url()]) })
  return page
}

// ---- what is looked at in a page; these functions run in the browser ----

function ready() {
  const code = document.querySelector('div.highlight pre:not(.cell_output pre)')
  const math = document.querySelector('.math'), done = window.MathJax?.startup?.promise
  return (!code || document.querySelector('.copybtn')) &&
    (!math || done?.then(() => document.fonts.ready).then(() => true))
}

function content() {
  const bad = [], say = (kind, what) => bad.push([kind, what]), all = q => [...document.querySelectorAll(q)]
  const short = e => (e.outerHTML.match(/^<[^>]*>/)[0] + e.textContent.trim()).slice(0, 90)
  if (all('h1').length > 1) say('heading', `${all('h1').length} H1`)
  for (const i of all('article img')) if (!i.naturalWidth) say('missing file', i.src)
  for (const b of all('div.highlight pre:not(.cell_output pre)'))
    if (!b.parentElement.querySelector('.copybtn')) say('copy button', short(b))
  for (const m of all('.math')) {
    const c = m.querySelector('mjx-container')
    if (!c || !c.getBoundingClientRect().width || m.querySelector('mjx-merror, mjx-utext')) say('math', short(m))
  }
  const loaded = [...document.fonts].some(f => f.family.includes('MJXTEX') && f.status === 'loaded')
  if (all('mjx-container').length && !loaded) say('math', 'no font was loaded')
  const walk = document.createTreeWalker(document.querySelector('article') ?? document.body, NodeFilter.SHOW_TEXT)
  while (walk.nextNode()) {
    const t = walk.currentNode
    if (t.parentElement.closest('code, pre, script, style, mjx-container, .math, .text_html')) continue
    const m = t.data.match(/\{[\w:]+\}`|\]\([^\s)]*\)|\*\*[a-z]|\$\\?\w+|\\\(|^:{3,}|```/)
    if (m) say('raw markup', t.data.trim().slice(Math.max(0, m.index-30), m.index+60))
  }
  return { bad, ids: all('[id]').map(e => e.id), links: all('a[href]').map(a => a.href) }
}

function overflow() { // the page does not scroll sideways, and on a desktop no table does
  const bad = [], w = document.documentElement.clientWidth, main = document.querySelector('.content') ?? document.body
  const say = (e, what) => bad.push(`${e.outerHTML.match(/^<[^>]*>/)[0].slice(0, 80)} ${what}`)
  for (const e of [document.documentElement, main])
    if (e.scrollWidth > e.clientWidth) bad.push(`${e.tagName} scrolls, ${e.scrollWidth} px wide`)
  const scrolls = e => e && e !== main &&
    (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
  for (const e of main.querySelectorAll('article *')) {
    const r = e.getBoundingClientRect()
    if (r.width && r.height && (r.right > w + 1 || r.left < -1) && !e.closest('mjx-assistive-mml') && !scrolls(e))
      say(e, `reaches from ${Math.round(r.left)} to ${Math.round(r.right)}`)
  }
  if (w > 1000) for (const e of main.querySelectorAll('.table-wrapper, .text_html'))
    if (e.scrollWidth > e.clientWidth + 1)
      say(e, `is cut off: ${e.scrollWidth} px in ${e.clientWidth}, ${e.textContent.trim().slice(0, 60)}`)
  return bad.slice(0, 6).map(o => ['overflow', `${o} at a window of ${w}`])
}

const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
async function accessible(page, scheme) { // every rule in the light, contrast once more in the dark
  await page.evaluate(s => { document.body.dataset.theme = s }, scheme)
  if (!await page.evaluate(() => 'axe' in window)) await page.addScriptTag({ path: opts.axe })
  const runOnly = scheme === 'light' ? { type: 'tag', values: TAGS } : { type: 'rule', values: ['color-contrast'] }
  const found = await page.evaluate(o => axe.run(document, o), { runOnly, resultTypes: ['violations'] })
  const known = v => v.id === 'page-has-heading-one' && page.url().endsWith('search.html') // the theme's page
  return found.violations.filter(v => !known(v)).flatMap(v => v.nodes.slice(0, 4).map(n =>
    [v.id, `${scheme}: ${n.target} ${n.html.slice(0, 100)} ${n.any[0]?.message ?? v.help}`.replace(/\s+/g, ' ')]))
}

function luminance() {
  const rgb = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3)
  return rgb.reduce((s, v) => s + v/765, 0)
}

// ---- checks: each says what is wrong as [kind, text] ----

const inRepo = to => to.match(new RegExp(`^${opts.repo}/(?:blob|edit|tree|raw)/main/([^#?]*)`))?.[1]
function own(to, base) {
  for (const b of [base, opts.url]) {
    if (to === b.slice(0, -1)) return ''
    if (to.startsWith(b)) return to.slice(b.length)
  }
}

function checkLink(to, base, ids) {
  const repo = inRepo(to), path = own(to, base)
  if (repo !== undefined) return existsSync(join(opts.root, decodeURIComponent(repo))) ? [] : [['dead link', to]]
  if (path === undefined) return /^(https:|mailto:)/.test(to) ? [] : [['dead link', to]]
  const [file, hash] = path.split('#').map(decodeURIComponent), target = file.split('?')[0] || 'index.html'
  if (!files.includes(target)) return [['dead link', to]]
  return hash && ids[target] && !ids[target].has(hash) ? [['missing anchor', to]] : []
}

async function theme(page, bad) { // each state once, from auto back to auto
  const seen = {}
  for (let i = 0; i < 3; i++) {
    await page.evaluate(() => document.querySelector('.theme-toggle-content .theme-toggle').click())
    seen[await page.evaluate(() => document.body.dataset.theme)] = await page.evaluate(luminance)
  }
  const right = seen.light > .8 && seen.dark < .3 && seen.auto === seen.light
  if (!right) bad.push(['theme switch', JSON.stringify(seen)])
}

async function enlarge(page, bad, patience) { // a figure fills the window when it is clicked, until Escape
  const figure = page.locator('button.enlarge').first()
  if (!await page.locator('article .cell_output img').count()) return
  const open = () => page.evaluate(() => !!document.querySelector('dialog.figure[open] img')?.naturalWidth)
  const seen = []
  try {
    await figure.click({ timeout: patience })
    await page.waitForFunction(() => document.querySelector('dialog.figure[open] img')?.naturalWidth)
    seen.push(await open())
    await page.keyboard.press('Escape')
    for (let i = 0; i < 50 && await open(); i++) await page.waitForTimeout(100)
    seen.push(await open())
  } catch { seen.push('cannot be clicked') }
  if (seen.join() !== 'true,false') bad.push(['enlarge', seen.join()])
}

let clipboard = Promise.resolve() // there is one for all pages
function copies(...args) {
  const done = clipboard.then(() => copy(...args))
  clipboard = done.catch(() => {})
  return done
}
async function copy(page, bad, base, patience) { // the first and the last button
  const paste = async () => { // no page may read the clipboard from file://
    await page.evaluate(() => {
      const t = document.body.appendChild(document.createElement('textarea'))
      t.id = 'pasted'
      t.focus()
    })
    await page.keyboard.press('Control+V')
    return page.evaluate(() => { const t = document.getElementById('pasted'); t.remove(); return t.value })
  }
  const buttons = page.locator('.copybtn'), n = await buttons.count()
  for (const i of new Set(n ? [0, n-1] : [])) {
    const b = buttons.nth(i), want = await b.evaluate(e => {
      e.scrollIntoView({ block: 'center', behavior: 'instant' })
      return e.parentElement.querySelector('pre').innerText.replace(/\n$/, '')
    })
    for (let i = 0; ; i++) // a page that is still being laid out may move the button away
      try { await b.click({ force: true }); break } catch (e) {
        if (i === 5) throw e
        await b.evaluate(e => e.scrollIntoView({ block: 'center', behavior: 'instant' }))
        await page.waitForTimeout(500)
      }
    let got = '', looks = 0
    for (const end = Date.now() + patience; got !== want && Date.now() < end; await page.waitForTimeout(100)) {
      if (++looks % 20 === 0) await b.click({ force: true }) // a busy machine may have lost the first one
      got = base === web ? await page.evaluate(() => navigator.clipboard.readText()) : await paste()
    }
    const quote = text => JSON.stringify(text.slice(0, 40))
    if (got !== want) bad.push(['copy button', `copies ${quote(got)}, not ${quote(want)}`])
  }
}

async function checkPage(page, path, base, bad, patience = 30_000) {
  await page.setViewportSize(desktop)
  await page.goto(base + path)
  await page.waitForFunction(ready, null, { timeout: patience }).catch(() => {})
  const found = await page.evaluate(content)
  bad.push(...found.bad)
  if (base === web) {
    for (const scheme of ['light', 'dark']) bad.push(...await accessible(page, scheme))
    await page.evaluate(() => { document.body.dataset.theme = 'auto' })
    bad.push(...await page.evaluate(overflow))
    await theme(page, bad)
    await enlarge(page, bad, patience)
    await copies(page, bad, base, patience)
    await page.setViewportSize(phone)
    bad.push(...await page.evaluate(overflow))
  }
  return found
}

// what readers type, and a page that has to be among the results; the first one has to be the first
const SEARCHES = { fit_superconv: 'fit.html#Learner.fit_superconv',
  superconvergence: 'tutorials/understanding.html', 'learning rate finder': 'tutorials/find_the_lr.html',
  'transfer learning': 'tutorials/transfer', citation: 'citation.html' }

async function search(page, base, bad) {
  const results = async q => {
    await page.setViewportSize(desktop)
    await page.goto(base + 'index.html')
    await page.locator('.sidebar-search:visible').fill(q)
    await page.keyboard.press('Enter')
    await page.waitForURL(/search\.html/)
    const done = () => /found|did not match/.test(
      document.querySelector('#search-results .search-summary, #search-results p')?.textContent)
    await page.waitForFunction(done, null, { timeout: 60_000 })
    return page.locator('#search-results ul.search > li a')
  }
  try {
    for (const [words, to] of Object.entries(SEARCHES)) {
      const found = await (await results(words)).evaluateAll(as => as.map(a => a.getAttribute('href')))
      if (!found.some(o => o.startsWith(to))) throw Error(`${words} finds ${found.slice(0, 5).join(', ') || 'nothing'}`)
      if (words === 'fit_superconv' && found[0] !== to) throw Error(`${words} is at ${found[0]}`)
    }
    await (await results('fit_superconv')).first().click()
    await page.locator('[id="Learner.fit_superconv"]').waitFor()
    if (await (await results('xylophone')).count()) throw Error('finds xylophone')
  } catch (e) { bad.push(['search', String(e).split('\n')[0]]) }
}

async function choiceHolds(page, base, bad) { // a chosen scheme outlives the page; auto follows the system
  const at = async () => {
    await page.goto(base + 'index.html')
    const chosen = await page.evaluate(() => document.body.dataset.theme)
    return `${chosen},${await page.evaluate(luminance) > .5 ? 'light' : 'dark'}`
  }
  await page.goto(base + 'index.html')
  const seen = []
  for (let i = 0; i < 3; i++) {
    await page.locator('button.theme-toggle:visible').first().click()
    seen.push(await at())
  }
  await page.emulateMedia({ colorScheme: 'dark' })
  seen.push(await at())
  await page.emulateMedia({ colorScheme: 'light' })
  if (seen.join(' ') !== 'dark,dark light,light auto,light auto,dark') bad.push(['theme switch', seen.join(' ')])
}

function texts(bad, ids) { // llms.txt and the pages as markdown
  if (!files.includes('llms.txt')) return bad.push(['llms.txt', 'llms.txt', 'is missing'])
  for (const f of files.filter(f => f.endsWith('.html.md') || f === 'llms.txt')) {
    const text = readFileSync(join(site, f), 'utf8').replace(/^```.*?^```|^~~~.*?^~~~/gms, '')
    for (const [, to] of text.replace(/`[^`\n]*`/g, '`').matchAll(/\]\((https?:[^)\s]+)\)/g))
      bad.push(...checkLink(to, opts.url, ids).map(o => [f, ...o]))
  }
  const llms = readFileSync(join(site, 'llms.txt'), 'utf8')
  if (!/^# .+\n\n> .+\n/.test(llms)) bad.push(['llms.txt', 'llms.txt', 'has no title and summary'])
  for (const p of pages) if (files.includes(p + '.md') && !llms.includes(`](${opts.url}${p}.md): `))
    bad.push(['llms.txt', 'llms.txt', `does not list ${p}.md`])
}

// ---- each check notices what it is for ----

const changed = f => t => { const r = f(t); if (r === t) throw Error(`the edit ${f} changes nothing`); return r }
const add = s => changed(t => t.replace('</article>', s + '</article>'))
const drop = script => changed(t => t.replace(RegExp(`<script[^>]*${script}[^>]*></script>`), ''))
const size = p => statSync(join(site, p)).size
function smallest(text) {
  return pages.filter(p => readFileSync(join(site, p), 'utf8').includes(text)).sort((a, b) => size(a) - size(b))[0]
}
const withMath = smallest('class="math'), withCode = smallest('cell_input'), withFigure = smallest('_images/')
const hijack = `<script>document.addEventListener("copy", e => {
  e.clipboardData.setData("text/plain", "other text")
  e.preventDefault()
  e.stopImmediatePropagation() }, true)</script>`
const together = [ // kind, what is said, what is added to a page
  ['console', /an error/, '<script>console.error("an error")</script>'],
  ['console', /thrown/, '<script>throw Error("thrown")</script>'],
  ['other host', /example/, '<img alt="x" src="https://example.com/x.png">'],
  ['missing file', /gone\.png/, '<img alt="x" src="gone.png">'],
  ['dead link', /docs\/gone\.html/, '<a href="gone.html">x</a>'],
  ['dead link', RegExp(opts.url + 'gone'), `<a href="${opts.url}gone.html">x</a>`],
  ['dead link', /gone\.py/, `<a href="${opts.repo}/blob/main/gone.py">x</a>`],
  ['missing anchor', /#gone-here/, '<a href="#gone-here">x</a>'],
  ['missing anchor', /html#gone-there/, `<a href="${withCode}#gone-there">x</a>`],
  ['heading', /2 H1/, '<h1>x</h1>'],
  ['heading-order', /h6/, '<h6>x</h6>'],
  ['image-alt', /logo/, '<img src="_static/logo.svg">'],
  ['color-contrast', /dark: .*dark on dark/, '<p style="color:#222">dark on dark</p>'],
  ['color-contrast', /light: .*light on light/, '<p style="color:#aaa">light on light</p>'],
  ['raw markup', /py:obj/, '<p>see {py:obj}`x`</p>'],
  ['raw markup', /\*\*bold/, '<p>a **bold** word</p>'],
  ['overflow', /wide-1.* at a window of 1400/, '<p class="wide-1" style="width:2000px">x</p>'],
  ['overflow', /wide-2.* at a window of 390/, '<p class="wide-2" style="width:500px">x</p>'],
  ['overflow', /wide-3.* is cut off/,
    '<div class="table-wrapper wide-3" style="overflow:auto"><p style="width:1100px">x</p></div>'],
]
const alone = [ // kind, what is said, page, edit
  ['copy button', /^</, withCode, drop('copybutton\\.js')],
  ['copy button', /other text/, withCode, add(hijack)],
  ['theme switch', /auto/, 'index.html', drop('furo\\.js')],
  ['theme switch', /dark/, 'index.html',
    changed(t => t.replace('</head>', '<style>body { background: white !important }</style></head>'))],
  ['enlarge', /cannot/, withFigure, drop('site\\.js')],
  ['math', /span/, withMath, drop('mathjax')],
  ['math', /frac/, withMath, add('<span class="math notranslate nohighlight">\\(\\frac{1}\\)</span>')],
]
async function breakThings() {
  let missed = 0
  const bad = [], page = await open(web, bad), ids = {}
  const broke = async (path, edit) => {
    bad.length = 0
    broken[path] = edit
    const found = await checkPage(page, path, web, bad, 2000)
    delete broken[path]
    bad.push(...found.links.flatMap(l => checkLink(l, web, { ...ids, [path]: new Set(found.ids) })))
  }
  const tell = (kind, said) => {
    if (bad.some(o => o[0] === kind && said.test(o[1]))) return
    missed++
    console.error(`not noticed, ${kind}: ${said}; only ${JSON.stringify(bad)}`)
  }
  ids[withCode] = new Set((await checkPage(page, withCode, web, bad)).ids)
  await broke('index.html', add(together.map(o => o[2]).join('')))
  for (const [kind, said] of together) tell(kind, said)
  for (const [kind, said, path, edit] of alone) { await broke(path, edit); tell(kind, said) }
  bad.length = 0
  broken['searchindex.js'] = changed(t => t.replaceAll('fit_superconv', 'fit_other'))
  await search(page, web, bad)
  delete broken['searchindex.js']
  tell('search', /fit_superconv/)
  await page.context().close()
  return missed
}

// ---- the run ----

const missed = await breakThings()
const seconds = () => ((Date.now()-start)/1000).toFixed(0)
console.log(`${together.length + alone.length + 1} faults made on purpose, ${missed} not noticed, ${seconds()} s`)
if (missed) process.exit(1)

const wrong = [], ids = {}, links = {}, queue = [web, disk].flatMap(base => pages.map(path => [base, path]))
async function work() {
  const bad = [], tabs = { [web]: await open(web, bad), [disk]: await open(disk, bad) }
  for (let job; job = queue.shift();) {
    const [base, path] = job, name = base === web ? path : `file://${path}`
    bad.length = 0
    try {
      const found = await checkPage(tabs[base], path, base, bad)
      if (base === web) [ids[path], links[path]] = [new Set(found.ids), new Set(found.links)]
      if (path === 'index.html') {
        await search(tabs[base], base, bad)
        await choiceHolds(tabs[base], base, bad)
      }
      if (path === withCode && base === disk) await copies(tabs[base], bad, base, 30_000)
    } catch (e) { bad.push(['cannot be checked', String(e).split('\n')[0]]) }
    wrong.push(...bad.map(o => [name, ...o]))
  }
}
await Promise.all([work(), work()])
for (const p of pages) for (const l of links[p] ?? []) wrong.push(...checkLink(l, web, ids).map(o => [p, ...o]))
texts(wrong, ids)
await browser.close()
server.close()
for (const line of [...new Set(wrong.map(o => o.join(': ')))].sort()) console.error(line)
const n_links = Object.values(links).reduce((n, s) => n + s.size, 0)
console.log(`${pages.length} pages, ${n_links} links, ${wrong.length} faults, ${seconds()} s`)
process.exit(wrong.length ? 1 : 0)
