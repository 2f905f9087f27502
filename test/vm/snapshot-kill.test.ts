import assert from 'node:assert/strict'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { enginesOf, finished, Home } from './nestvm.ts'

const home = new Home()
after(() => home[Symbol.asyncDispose]())

const dir = () => join(home.dir, 'cache/nestvm/snapshots')
const names = () => (existsSync(dir()) ? readdirSync(dir()) : [])
const drafts = () => names().filter((name) => name.endsWith('.tmp'))
const finals = () => names().filter((name) => !name.endsWith('.tmp'))
const inDrafts = (file: string) => drafts().some((draft) => existsSync(join(dir(), draft, file)))
const sockets = () => readdirSync(join(home.dir, 'nestvm'), { recursive: true, encoding: 'utf8' })

/** Starts nestvm and kills it as soon as it has come so far, or a moment later. */
async function killed(args: string[], reached: () => boolean, laterMs = 0): Promise<void> {
  const child = home.start(...args)
  const ended = finished(child)
  while (!reached() && child.exitCode === null) await sleep(1)
  await sleep(laterMs)
  child.kill('SIGKILL')
  await ended
}

/** Whatever is there now restores right, or not at all. */
async function works(): Promise<void> {
  const { status, stdout } = await home.run(['run', '--', 'sh', '-c', 'echo works; md5sum < /bin/busybox | wc -c'])
  assert.deepEqual([status, stdout], [0, 'works\n36\n'])
  assert.deepEqual(drafts(), [])
  assert.deepEqual(await home.traces(), [])
}

const saving: readonly [stage: string, reached: () => boolean][] = [
  ['a directory for it', () => drafts().length > 0],
  ['its memory', () => inDrafts('ram')],
  ['its state', () => inDrafts('state') || finals().length > 0],
  ['its record', () => inDrafts('snapshot.json') || finals().length > 0],
  ['its name', () => finals().length > 0],
  ['a second engine', () => enginesOf(home.dir).length > 1],
]

for (const [stage, reached] of saving) {
  test(`after kill -9 of the first run when its snapshot has come to ${stage}, the next run works`, async () => {
    rmSync(dir(), { recursive: true, force: true })
    await killed(['run', '--', 'sleep', '1000'], reached)
    await works()
  })
}

test('after kill -9 of a run at any moment of a restore, the next one works', async () => {
  await works()
  const [id] = finals()
  for (const [reached, laterMs] of [
    [() => enginesOf(home.dir).length > 0, 0],
    [() => sockets().some((name) => name.endsWith('/qmp')), 0],
    ...[5, 20, 60, 120, 250, 500].map((ms) => [() => sockets().some((name) => name.endsWith('/qmp')), ms] as const),
  ] as const) {
    await killed(['run', '--', 'sleep', '1000'], reached, laterMs)
    await works()
    assert.deepEqual(finals(), [id])
  }
})

test('after kill -9 of snapshot create at any stage, the machine runs on and nothing is left', async () => {
  await home.ok('run', '-d', '--name', 'a')
  await home.ok(
    'exec',
    'a',
    '--',
    'sh',
    '-c',
    '(i=0; while :; do i=$((i + 1)); echo $i > /tmp/next; mv /tmp/next /tmp/n; usleep 20000; done) > /dev/null 2>&1 < /dev/null &',
  )
  const before = finals()
  const count = async () => Number(await home.ok('exec', 'a', '--', 'cat', '/tmp/n'))
  let last = 0
  for (const reached of [
    () => drafts().length > 0,
    () => inDrafts('stream'),
    () => inDrafts('ram'),
    // What comes after these is over in a moment.
    () => inDrafts('state') || finals().length > before.length,
    () => finals().length > before.length,
  ]) {
    await killed(['snapshot', 'create', 'a', '--tag', 'cut'], reached)
    const now = await count()
    assert.ok(now > last, `the counter stood at ${last} and stands at ${now}`)
    last = now
    assert.deepEqual(drafts(), [])
    for (const id of finals().filter((name) => !before.includes(name))) {
      assert.ok(Number(await home.ok('clone', id, '--', 'cat', '/tmp/n')) > 0)
      await home.ok('snapshot', 'rm', id)
    }
  }
  await home.ok('rm', '-f', 'a')
  assert.deepEqual(await home.traces(), [])
})
