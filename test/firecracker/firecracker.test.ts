import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { FirecrackerApi } from '../../src/engine/firecracker/api.ts'
import { firecrackerCommand } from '../../src/engine/firecracker/boot.ts'
import { readFirecracker } from '../../src/engine/firecracker/program.ts'
import { loadFirecracker, resumeFirecracker, saveFirecracker } from '../../src/engine/firecracker/state.ts'
import { engineFiles } from '../../src/engine/qemu/argv.ts'
import { run } from '../../src/machine/run.ts'
import { Context } from '../../src/stack/context.ts'
import { findRecord, type GuestRecord } from '../../src/stack/record.ts'
import { NestvmError } from '../../src/store/error.ts'
import { buildImage, writeLayout } from '../image/images.ts'
import { Home } from '../vm/nestvm.ts'

// With the Firecracker that NESTVM_FIRECRACKER names, in a guest hypervisor, which may be emulated.
const program = process.env.NESTVM_FIRECRACKER
if (!program) throw new Error('NESTVM_FIRECRACKER is to name a Firecracker for x86-64')

const home = new Home()
home.ownImages()
const firecracker = ['--engine', 'firecracker']
before(() => Object.assign(process.env, home.env))
after(() => home[Symbol.asyncDispose]())

const inspect = async (machine: string) =>
  (
    await home.json<{ levels: { engine: string; seen: { extension?: string; hypervisor?: string } }[] }>(
      'inspect',
      machine,
    )
  ).levels

test('a command runs at L2, and its output and exit status come back', async () => {
  const script = 'echo out; echo err >&2; exit 3'
  const { status, stdout, stderr } = await home.run(['run', '--depth', '2', ...firecracker, '--', 'sh', '-c', script])
  assert.deepEqual([status, stdout], [3, 'out\n'])
  assert.match(stderr, /err\n/)
})

test('the same stack is started from what was saved of it, Firecracker and all', async () => {
  const begun = performance.now()
  assert.equal(await home.ok('run', '--depth', '2', ...firecracker, '--name', 'w', '--', 'hostname'), 'w-l2\n')
  assert.equal((await home.json<unknown[]>('snapshot', 'ls')).length, 1)
  assert.ok(performance.now() - begun < 10_000)
})

test('a guest has its processors, volumes, ports and a way out, and sees no extension', async () => {
  const dir = join(home.dir, 'volume')
  mkdirSync(dir)
  writeFileSync(join(dir, 'in'), 'from the host')
  const more = ['--cpus', '2', '-v', `${dir}:/volume`, '-p', '18453:80']
  assert.equal(await home.ok('run', '-d', '--depth', '2', ...firecracker, '--name', 'f', ...more), 'f/l2\n')
  const script =
    'nproc; cat /volume/in; echo from the guest > /volume/out; mkdir /www; echo page > /www/x; httpd -h /www'
  assert.equal(await home.ok('exec', 'f/l2', '--', 'sh', '-c', script), '2\nfrom the host')
  assert.equal(readFileSync(join(dir, 'out'), 'utf8'), 'from the guest\n')
  assert.equal(await (await fetch('http://127.0.0.1:18453/x')).text(), 'page\n')
  const [outer, inner] = await inspect('f/l2')
  assert.deepEqual([outer?.engine, inner?.engine], ['qemu', 'firecracker'])
  assert.match(inner?.seen.hypervisor ?? '', /^KVMKVMKVM/)
  assert.equal(inner?.seen.extension, undefined)
})

test('a container runs in it, from an image and on a disk to write to', async () => {
  const busybox = await home.ok('exec', 'f', '--', 'base64', '/bin/busybox')
  const files = [
    { path: 'bin/busybox', data: Buffer.from(busybox, 'base64'), mode: 0o755 },
    ...['sh', 'echo', 'df', 'cat'].map((name) => ({
      ...{ path: `bin/${name}`, type: 'symlink' as const, linkPath: 'busybox' },
    })),
    ...['proc', 'sys', 'dev'].map((path) => ({ path, type: 'directory' as const })),
    { path: 'etc/hello', data: 'hello from the image\n' },
  ]
  const built = buildImage([files], { config: { Env: ['PATH=/bin'] } })
  await writeLayout(join(home.dir, 'image'), { latest: built })
  const script = 'cat /etc/hello; echo written > /written && cat /written; df -m / | sed -n 2p'
  const image = ['--memory', '256M', '--disk', '96M', `oci:${join(home.dir, 'image')}`]
  const said = await home.ok('run', '--on', 'f', ...firecracker, ...image, '--', 'sh', '-c', script)
  assert.match(said, /^hello from the image\nwritten\n\S+ +[89]\d /)
})

test('what it lacks is refused: a console, and what needs ports', async () => {
  for (const args of [
    ['console', 'f/l2'],
    ['logs', 'f/l2'],
    ['migrate', 'f/l2', '--to', 'f'],
    ['run', '-d', '--on', 'f', ...firecracker, '--memory', '128M', '--', 'true'],
  ]) {
    const { status, stderr } = await home.run(args)
    assert.match(stderr, /Firecracker cannot/, args.join(' '))
    assert.notEqual(status, 0)
  }
  assert.match(await home.ok('logs', '--of', 'kernel', 'f/l2'), /nestvm: up/)
})

test('it stops in time, and leaves nothing in the guest hypervisor', async () => {
  const look = 'ls -l /proc/[0-9]*/exe 2> /dev/null | grep firecracker-; ls /run/nestvm /sys/class/net'
  const before = await home.ok('exec', 'f', '--', 'sh', '-c', look)
  const begun = performance.now()
  await home.ok('stop', 'f/l2')
  assert.ok(performance.now() - begun < 20_000)
  assert.match(before, /-> \/run\/nestvm\/firecracker-[\s\S]*^[0-9a-f]{10}$[\s\S]*^t[0-9a-f]{10}$/m)
  assert.doesNotMatch(await home.ok('exec', 'f', '--', 'sh', '-c', look), /-> |^[0-9a-f]{10}$|^t[0-9a-f]{10}$/m)
  await home.ok('rm', '-f', 'f')
})

test('a guest that panics is told as one that died, with its console', async () => {
  const { status, stderr } = await home.run([
    ...['run', '--depth', '2', ...firecracker, '--no-snapshot', '--'],
    ...['sh', '-c', 'echo c > /proc/sysrq-trigger'],
  ])
  assert.equal(status, 125)
  assert.match(stderr, /l2: its engine ended while it ran[\s\S]*sysrq triggered crash/)
})

test('a guest in Firecracker is a hypervisor for another one: L2 and L3', async () => {
  await home.ok('run', '-d', '--depth', '2', ...firecracker, '--nested', '--name', 'h', '--no-snapshot')
  assert.equal(await home.ok('run', '--on', 'h/l2', ...firecracker, '--name', 'a', '--', 'hostname'), 'h-l2-a\n')
  assert.equal(await home.ok('run', '--on', 'h/l2', '--name', 'b', '--', 'hostname'), 'h-l2-b\n')
  const { stderr } = await home.run(['run', '--on', 'h/l2', '--disk', '64M', '--', 'true'])
  assert.match(stderr, /Firecracker cannot attach disks/)
  await home.ok('rm', '-f', 'h')
})

test('Firecracker saves a guest by its API, and another one loads it', async () => {
  await home.ok('run', '-d', '--nested', '--name', 'o', '--no-snapshot')
  await home.ok('run', '-d', '--on', 'o', ...firecracker, '--name', 'fc', '--memory', '128M')
  const count = 'while :; do echo $((n = n + 1)) > /tmp/n; usleep 100000; done > /dev/null 2>&1 < /dev/null &'
  await home.ok('exec', 'o/fc', '--', 'sh', '-c', count)
  const counted = async () => Number(await home.ok('exec', 'o/fc', '--', 'cat', '/tmp/n'))
  const signal = AbortSignal.timeout(120_000)
  await using context = new Context(signal)
  const [outer, inner] = await Promise.all([findRecord('o'), findRecord('o/fc')])
  const l1 = await context.guest(outer)
  const api = (socket: string) => new FirecrackerApi((stop) => l1.connect({ unix: socket }, stop))
  const saved = { state: '/run/nestvm/state', memory: '/run/nestvm/memory' }

  const first = api(engineFiles(inner.engineDir).apiSocket)
  await saveFirecracker(first, saved, signal)
  const { stdout } = await run(l1, ['sh', '-c', `stat -c %s ${saved.memory}`])
  assert.equal(Number(stdout), 128 * 2 ** 20)
  await resumeFirecracker(first, signal)
  const before = await counted()
  await sleep(2000)
  const atEnd = await counted()
  assert.ok(atEnd > before)

  await run(l1, ['kill', '-9', String(inner.enginePid)])
  const files = engineFiles('/run/nestvm/second')
  await run(l1, ['mkdir', '/run/nestvm/second'])
  await l1.spawn(await commandOf(inner, files), { signal })
  const second = api(files.apiSocket)
  await eventually(() => loadFirecracker(second, saved, inner.tap ?? '', signal))
  const after = await counted()
  assert.ok(after < atEnd, `it goes on from where it was saved: ${after}, not ${atEnd}`)
  await sleep(2000)
  assert.ok((await counted()) > after)
  await home.ok('rm', '-f', 'o')
})

async function commandOf(record: GuestRecord, files: ReturnType<typeof engineFiles>): Promise<string[]> {
  const { arch, cpus, memoryMiB, mac, tap = '' } = record
  const { pathInGuest } = await readFirecracker(program ?? '', arch)
  return firecrackerCommand({
    ...{ name: 'second', arch, cpus, memoryMiB, mac, tap, files, program: pathInGuest },
    ...{ nested: false, kernel: '', disks: [] },
  })
}

/** Until it listens. */
async function eventually(work: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof NestvmError && error.code === 'CONNECT_FAILED')) throw error
      await sleep(50)
    }
  }
}
