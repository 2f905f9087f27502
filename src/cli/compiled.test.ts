import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'

const dir = mkdtempSync(join(tmpdir(), 'nvt-'))
after(() => rmSync(dir, { recursive: true, force: true }))

const loader = new URL('./compiled.ts', import.meta.url).href
const program = join(dir, 'program.cjs')
const main = join(dir, 'main.mjs')
writeFileSync(
  main,
  `import { runCompiled } from ${JSON.stringify(loader)}\nrunCompiled(${JSON.stringify(program)}, process.argv[2])`,
)

function says(text: string): void {
  writeFileSync(program, `console.log(${JSON.stringify(text)}, require('node:os').EOL.length)`)
}

const here = new LocalMachine()

async function nestvm(cache: string, command: string): Promise<string> {
  const argv = [process.execPath, '--import', 'tsx', main, command]
  return (await run(here, argv, { env: { XDG_CACHE_HOME: cache } })).stdout
}

const kept = (cache: string) => readdirSync(join(cache, 'nestvm/compiled'))

test('what was compiled is kept for each command, and used again', async () => {
  const cache = join(dir, 'cache')
  says('one')
  for (const command of ['ls', 'ls', 'run']) assert.equal(await nestvm(cache, command), 'one 1\n')
  assert.deepEqual(
    kept(cache).map((name) => name.split('.').at(-1)),
    ['ls', 'run'],
  )
})

test('another program of the same length is not taken for the one that was kept, which is removed', async () => {
  const cache = join(dir, 'cache')
  says('two')
  utimesSync(program, 1, 1)
  assert.equal(await nestvm(cache, 'ls'), 'two 1\n')
  assert.equal(kept(cache).length, 1)
})

test('what was kept may be damaged, and may not be keepable', async () => {
  const cache = join(dir, 'cache')
  for (const name of kept(cache)) writeFileSync(join(cache, 'nestvm/compiled', name), 'damaged')
  assert.equal(await nestvm(cache, 'ls'), 'two 1\n')
  const file = join(dir, 'file')
  writeFileSync(file, '')
  chmodSync(file, 0o400)
  assert.equal(await nestvm(file, 'ls'), 'two 1\n')
})
