import assert from 'node:assert/strict'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { judge } from '../host/checks/judge.ts'
import { readFacts } from '../host/facts/file.ts'
import { neededMiB } from '../stack/doctor.ts'
import { doctorText } from './doctor-text.ts'

// Each document of a machine has beside it what doctor says of it. UPDATE_GOLDEN=1 writes that anew, for git diff to show.
const dir = fileURLToPath(new URL('../../test/facts', import.meta.url))
const names = readdirSync(dir)
  .filter((name) => name.endsWith('.json'))
  .map((name) => name.replace(/\.json$/, ''))
const question = { depth: 2, neededMiB: neededMiB(2) }

for (const name of names) {
  test(`what is found on ${name}`, async () => {
    const facts = await readFacts(join(dir, `${name}.json`))
    const said = `${doctorText([facts], judge([facts], question), { color: false, width: 100 })}\n`
    const golden = join(dir, `${name}.txt`)
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, said)
    assert.equal(said, await readFile(golden, 'utf8'))
  })
}

test('no document is without its findings, and the other way round', () => {
  assert.ok(names.length >= 25)
  const texts = readdirSync(dir).filter((name) => name.endsWith('.txt'))
  assert.deepEqual(
    texts.filter((name) => !existsSync(join(dir, name.replace(/txt$/, 'json')))),
    [],
  )
})

test('a document says whether it was collected or derived, and a derived one from what', async () => {
  for (const name of names) {
    const { origin, source } = await readFacts(join(dir, `${name}.json`))
    assert.ok(origin === 'collected' || (source ?? '').length > 20, name)
  }
})

test('docs/doctor.md lists just the findings that there are', async () => {
  const chain = await Promise.all(names.map((name) => readFacts(join(dir, `${name}.json`))))
  const judged = chain.flatMap((facts) => [2, 4].map((depth) => judge([facts], { depth, neededMiB: neededMiB(depth) })))
  const ids = judged.flatMap(({ machines }) => machines.flatMap(({ findings }) => findings.map(({ id }) => id)))
  const text = await readFile(join(dir, '../../docs/doctor.md'), 'utf8')
  const [, tables = ''] = text.split('## Findings')
  const listed = [...tables.matchAll(/^\| (`.*?`) \|/gm)].flatMap(([, cell = '']) =>
    cell.match(/[a-z0-9]+(-[a-z0-9]+)+/g),
  )
  assert.deepEqual(listed.sort(), [...new Set(ids)].sort())
})
