import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'
import { completionScript } from './completion-script.ts'
import { createProgram } from './program.ts'

const machine = new LocalMachine()
const dir = mkdtempSync(join(tmpdir(), 'completion-'))
after(() => rmSync(dir, { recursive: true }))

const bash = join(dir, 'nestvm.bash')
writeFileSync(bash, completionScript('bash', createProgram()))
// Stands in for `nestvm ls`, whose output the script reads.
const machines = [{ machine: 'outer' }, { machine: 'outer/inner' }]
writeFileSync(join(dir, 'nestvm'), `#!/bin/sh\ncat <<'E'\n${JSON.stringify(machines, null, 2)}\nE\n`)
chmodSync(join(dir, 'nestvm'), 0o755)

/** What bash would offer for the last word. */
async function complete(...words: string[]): Promise<string[]> {
  const script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nestvm; declare -p COMPREPLY'
  const env = { PATH: `${dir}:${process.env.PATH}` }
  const { stdout } = await run(machine, ['bash', '-c', script, 'bash', bash, 'nestvm', ...words], { env })
  return [...stdout.matchAll(/\[\d+\]="([^"]*)"/g)].flatMap(([, word = '']) => word)
}

test('bash takes the scripts for bash and zsh', async () => {
  const zsh = join(dir, 'nestvm.zsh')
  writeFileSync(zsh, completionScript('zsh', createProgram()))
  for (const path of [bash, zsh]) assert.equal((await run(machine, ['bash', '-n', path])).stderr, '')
})

test('a command is completed, and none that is hidden', async () => {
  assert.deepEqual(await complete('insp'), ['inspect'])
  assert.deepEqual((await complete('s')).sort(), ['setup', 'shell', 'snapshot', 'ssh-config', 'stop'])
  assert.ok((await complete('')).includes('run'))
})

test("an option is completed from its command's own", async () => {
  assert.deepEqual(await complete('run', '--de'), ['--depth', '--detach'])
  assert.deepEqual(await complete('ls', '--t'), ['--tree'])
  assert.deepEqual(await complete('ls', '--de'), [])
})

test('commands of commands are completed, and their options', async () => {
  assert.deepEqual((await complete('image', '')).sort(), ['ls', 'pull', 'rm'])
  assert.deepEqual(await complete('image', 'pull', '--a'), ['--arch'])
  assert.deepEqual(await complete('image', 'rm', '--a'), [])
  assert.deepEqual(await complete('bench', 'vo'), ['volumes'])
})

test('machines are completed where a command takes them, and after --on', async () => {
  assert.deepEqual(await complete('exec', 'out'), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('stop', 'outer/'), ['outer/inner'])
  assert.deepEqual(await complete('run', '--on', 'o'), ['outer', 'outer/inner'])
  assert.deepEqual(await complete('exec', '--w'), ['--workdir'])
})

test('the words of an option that takes one of some are completed', async () => {
  assert.deepEqual(await complete('enable', '--platform', 'v'), ['vmware', 'virtualbox'])
  assert.deepEqual(await complete('run', '--platform', 'v'), [])
  assert.match(completionScript('fish', createProgram()), /from enable' -l platform -xa 'intel amd /)
})

test('fish is told of every command and its options', () => {
  const script = completionScript('fish', createProgram())
  assert.match(script, /-a run -d /)
  assert.match(script, /'__fish_seen_subcommand_from run' -l depth$/m)
  assert.match(script, /from image; and not __fish_seen_subcommand_from pull ls rm' -a pull -d/)
  assert.match(script, /from image; and __fish_seen_subcommand_from pull' -l arch -xa .x86_64 arm64./m)
  assert.doesNotMatch(script, /ssh-proxy/)
})
