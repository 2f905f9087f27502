import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { gather, parseGathered } from './gather.ts'
import { identity, levelItems, logItem } from './items.ts'

const limits = { timeoutMs: 30_000, signal: new AbortController().signal }
const here = new LocalMachine()

test('an item that has nothing, or something else, says why; one that fails hinders no other', async () => {
  const items = [
    { file: 'a', script: 'echo one; echo two' },
    { file: 'b', script: 'need frobnicator; echo never' },
    { file: 'c', script: "instead 'no frobnicator here: ls' && echo list" },
    { file: 'd', script: 'cd /nowhere || exit 7' },
    { file: 'e', script: 'true' },
    { file: 'f', script: "cat; printf 'it'\\''s $HOME\\n'" },
    { file: 'g', script: 'echo elsewhere', arch: /^vax$/ },
  ]
  const [a, b, c, d, ...rest] = await gather(here, items, limits)
  assert.deepEqual(a, { file: 'a', text: 'one\ntwo\n', why: undefined })
  assert.deepEqual(b, { file: 'b', text: '', why: 'there is no frobnicator here' })
  assert.deepEqual(c, { file: 'c', text: 'list\n', why: 'no frobnicator here: ls' })
  assert.match(d?.why ?? '', /nowhere/)
  assert.deepEqual(rest, [
    { file: 'e', text: '', why: 'it printed nothing' },
    { file: 'f', text: "it's $HOME\n", why: undefined },
  ])
})

test('what a report has of this host is there, or said to be missing', async () => {
  const said = new Map((await gather(here, [...levelItems, identity], limits)).map((one) => [one.file, one]))
  assert.match(said.get('kernel.txt')?.text ?? '', /^Linux /)
  assert.match(said.get('cpuinfo.txt')?.text ?? '', /^processor/)
  assert.match(said.get('memory.txt')?.text ?? '', /^MemTotal:/)
  assert.match(said.get('identity')?.text ?? '', /^host .*\n(.*\n)*user /)
  for (const { file, text, why } of said.values()) assert.ok(text !== '' || why, file)
  assert.equal(said.has('sysinfo.txt'), process.arch === 's390x')
})

test('a log is read by a path of any name', async () => {
  const [log] = await gather(here, [logItem('log', "/it's not/there $(id)")], limits)
  assert.deepEqual(log, { file: 'log.txt', text: '', why: 'nothing was written to it' })
})

test('a machine names no files, and one that did not come to its end has told nothing', () => {
  const items = [{ file: 'a', script: '' }]
  const told = '\nM begin arch\nx\nM begin ../../etc/passwd\nx\nM why \n\nM begin a\ntext\n\nM why \n\nM begin end\n'
  assert.deepEqual(parseGathered(told, 'M', items, 'vm'), [{ file: 'a', text: 'text\n', why: undefined }])
  assert.throws(() => parseGathered(told.replace('begin end', ''), 'M', items, 'vm'), { code: 'REPORT_INCOMPLETE' })
})
