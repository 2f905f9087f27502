import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Qmp } from '../../src/engine/qemu/qmp.ts'
import { enginesOf, finished, Home, said } from './nestvm.ts'

// One guest hypervisor serves all tests of this file.
const home = new Home()
before(() => home.ok('run', '-d', '--nested', '--name', 'outer'))
after(() => home[Symbol.asyncDispose]())

test('two guests run side by side in one guest hypervisor, and end alone', async () => {
  await Promise.all(['a', 'b'].map((name) => home.ok('run', '-d', '--on', 'outer', '--name', name, '--memory', '160M')))
  const names = await Promise.all(['a', 'b'].map((name) => home.ok('exec', `outer/${name}`, '--', 'hostname')))
  assert.deepEqual(names, ['outer-a\n', 'outer-b\n'])
  await home.ok('stop', 'outer/a')
  assert.equal(await home.ok('exec', 'outer/b', '--', 'echo', 'alive'), 'alive\n')
  await home.ok('rm', '-f', 'outer/b')
  assert.equal(await home.ok('exec', 'outer', '--', 'sh', '-c', 'ls /sys/class/net | grep -c ^t || true'), '0\n')
})

test('a name that is taken is refused, and the machine that has it is left alone', async () => {
  const { status, stdout } = await home.run(['run', '--json', '-d', '--name', 'outer'])
  assert.deepEqual([status, JSON.parse(stdout).error.code], [125, 'NAME_TAKEN'])
  assert.equal(await home.ok('exec', 'outer', '--', 'echo', 'alive'), 'alive\n')
})

test('only a guest hypervisor takes guests, and never more than it has memory for', async () => {
  const { stdout } = await home.run(['run', '--json', '--on', 'outer', '--memory', '8G', '--', 'true'])
  assert.equal(JSON.parse(stdout).error.code, 'NOT_ENOUGH_MEMORY')
})

test('a detached command leaves its output and exit status, in the stack of its own', async () => {
  assert.equal(
    await home.ok('run', '-d', '--depth', '2', '--name', 'job', '--', 'sh', '-c', 'echo said; exit 5'),
    'job/l2\n',
  )
  const job = () => home.json<{ machine: string; phase: string; exitStatus?: number }[]>('ls', '--all')
  for (let tries = 0; tries < 300; tries++) {
    if ((await job()).some(({ machine, phase }) => machine === 'job' && phase === 'exited')) break
    await sleep(200)
  }
  assert.deepEqual(
    (await job())
      .filter(({ machine }) => machine.startsWith('job'))
      .map(({ phase, exitStatus }) => [phase, exitStatus]),
    [
      ['exited', 5],
      ['exited', 5],
    ],
  )
  for (const machine of ['job', 'job/l2']) assert.equal(await home.ok('logs', machine), 'said\n')
  assert.equal((await home.run(['exec', 'job', '--', 'true'])).status, 125)
  await home.ok('rm', 'job')
})

test('a detached command in a guest hypervisor that stays leaves its output and exit status, too', async () => {
  const script = 'echo said; exit 6'
  await home.ok('run', '-d', '--on', 'outer', '--name', 'job', '--memory', '160M', '--', 'sh', '-c', script)
  type Listed = { machine: string; phase: string; exitStatus?: number }[]
  const job = async () => (await home.json<Listed>('ls', '--all')).find(({ machine }) => machine === 'outer/job')
  while ((await job())?.phase === 'running') await sleep(200)
  assert.deepEqual([(await job())?.phase, (await job())?.exitStatus], ['exited', 6])
  assert.equal(await home.ok('logs', 'outer/job'), 'said\n')
  await home.ok('rm', 'outer/job')
  assert.equal(await home.ok('exec', 'outer', '--', 'sh', '-c', 'ls /sys/class/net | grep -c ^t || true'), '0\n')
})

test('when a nested hypervisor is removed, no route leads to the guests in it, and their ways in serve the next', async () => {
  await home.ok('run', '-d', '--on', 'outer', '--depth', '2', '--name', 'mid', '--memory', '160M')
  const ways = (await forwards()).length
  await home.ok('rm', '-f', 'outer/mid')
  assert.equal(await home.ok('exec', 'outer', '--', 'sh', '-c', 'ip route | grep -c -v / || true'), '1\n')
  await home.ok('run', '--on', 'outer', '--depth', '2', '--memory', '160M', '--', 'true')
  assert.equal((await forwards()).length, ways)
})

/** The lines in which QEMU lists what it forwards to the guests in `outer`. */
async function forwards(): Promise<string[]> {
  const [id = ''] = readdirSync(join(home.dir, 'nestvm'))
  await using qmp = await Qmp.open(connect(join(home.dir, 'nestvm', id, 'qmp')))
  return (await qmp.human('info usernet')).split('\n').filter((line) => line.includes('HOST_FORWARD'))
}

test('logs follow a command that is still running', async () => {
  await home.ok(
    'run',
    '-d',
    '--name',
    'loop',
    '--',
    'sh',
    '-c',
    'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done',
  )
  const child = home.start('logs', '-f', 'loop')
  await said(child, 'line 3\n')
  child.kill('SIGINT')
  await finished(child)
  await home.ok('rm', '-f', 'loop')
})

test('logs of a command in a nested guest end with it, and are whole', async () => {
  const script = 'for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done'
  await home.ok('run', '-d', '--depth', '2', '--name', 'count', '--', 'sh', '-c', script)
  const { status, stdout, stderr } = await home.run(['logs', '-f', 'count/l2'])
  assert.equal(stdout, '123456'.replaceAll(/./g, 'line $&\n'), stderr)
  assert.equal(status, 0)
  await home.ok('rm', '-f', 'count')
})

test('a detached run that fails after its start leaves no machine', async () => {
  const engines = enginesOf(home.dir).length
  const { status, stderr } = await home.run(['run', '-d', '--name', 'nobody', '-u', 'alice', '--', 'true'])
  assert.match(stderr, /no user alice/)
  assert.equal(status, 2)
  assert.equal(enginesOf(home.dir).length, engines)
})

test('the console gives a shell that needs no network', async () => {
  const child = home.start('console', 'outer')
  await said(child, /connected/, 'stderr')
  child.stdin?.write('\n')
  const answer = said(child, /up=4[0-9]/)
  await sleep(1000)
  child.stdin?.write('echo up=$((6 * 7)); ifconfig eth0 down; echo; sleep 1; ifconfig eth0 up\n')
  await answer
  child.stdin?.write('\x1d')
  await finished(child)
})

test('a guest whose kernel panics ends the run, and the end of its console is shown', async () => {
  const { status, stderr } = await home.run(['run', '--', 'sh', '-c', 'echo c > /proc/sysrq-trigger; sleep 100'])
  assert.equal(status, 125)
  assert.match(stderr, /Kernel panic - not syncing: sysrq triggered crash/)
})
