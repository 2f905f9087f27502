import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalMachine } from './local.ts'
import { commandLine, quote } from './quote.ts'
import { run } from './run.ts'

const machine = new LocalMachine()
const dir = mkdtempSync(join(tmpdir(), 'quote '))
after(() => rmSync(dir, { recursive: true }))

/** What a shell makes of a command line. */
async function shell(line: string): Promise<string> {
  return (await run(machine, ['sh', '-c', line])).stdout
}

/** Prints each of its arguments, ended by a byte that none of them holds. */
const show = ['printf', '%s\\001']

const nasty = [
  ...['', ' ', "'", "''", '"', '\\', '\\\\', "\\'", '$HOME', '`id`', '$(id)', '*', '~', '#x', '!', '-n', '--'],
  ...['a;b', 'a|b', 'a&b', '<x', '>x', '(x)', '{a,b}', '[a]', '?', 'a\nb', '\n', '\t', 'ü ß', '\u{1f600}', '=x', 'a=b'],
  ...["it's", "'; exit 9; '", '\r', '\x7f', '%s%n', 'x'.repeat(5000)],
]

test('a shell sees every word as it was', async () => {
  assert.equal(await shell(commandLine([...show, ...nasty])), nasty.map((word) => `${word}\x01`).join(''))
})

test('a shell sees every word as it was, each alone', async () => {
  for (const word of nasty.slice(0, 24)) assert.equal(await shell(`printf '%s\\001' ${quote(word)}`), `${word}\x01`)
})

test('plain words stay readable', () => {
  assert.equal(commandLine(['ls', '-l', '/tmp/a_b.c:d@e,f+g%h=i']), 'exec ls -l /tmp/a_b.c:d@e,f+g%h=i')
})

test('variables and the directory are those asked for', async () => {
  const env = { A: "it's $HOME\n`x`", B: '' }
  const argv = ['sh', '-c', 'printf "%s\\001" "$A" "$B" "$PWD"']
  assert.equal(await shell(commandLine(argv, { env, cwd: dir })), `${env.A}\x01\x01${dir}\x01`)
})

test('where the directory is absent, nothing runs', async () => {
  const line = commandLine(['echo', 'ran'], { cwd: join(dir, 'absent') })
  const result = await run(machine, ['sh', '-c', line], { allowFailure: true })
  assert.equal(result.stdout, '')
  assert.notEqual(result.exit.code, 0)
})

test('a program that is let go writes to its log, tells its pid, and outlives its shell', async () => {
  const log = join(dir, "it's a log")
  const argv = ['sh', '-c', 'echo $$; sleep 2; echo done']
  const shell = await machine.spawn(['sh', '-c', commandLine(argv, { cwd: dir, detach: { log, stays: true } })])
  const pid = await new Promise<Buffer>((resolve) => shell.stdout.once('data', resolve))
  shell.kill('SIGKILL')
  const limit = performance.now() + 10_000
  // Its pid may be told before it has opened its log.
  const said = () => (existsSync(log) ? readFileSync(log, 'utf8') : '')
  while (performance.now() < limit && !said().includes('done')) await sleep(20)
  assert.equal(said(), `${pid}done\n`)
})

test('a program that writes to a log but does not stay takes the place of its shell', async () => {
  const log = join(dir, 'log')
  const argv = ['sh', '-c', 'echo $$; exit 7']
  const result = await run(machine, ['sh', '-c', commandLine(argv, { detach: { log, stays: false } })], {
    allowFailure: true,
  })
  assert.equal(readFileSync(log, 'utf8'), result.stdout)
  assert.equal(result.exit.code, 7)
})
