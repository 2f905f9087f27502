import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from '../machine/local.ts'
import { run } from '../machine/run.ts'

const main = join(import.meta.dirname, 'start.ts')
let dir: string
let conf: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'enable-'))
  conf = join(dir, 'root/etc/modprobe.d/kvm.conf')
  mkdirSync(join(conf, '..'), { recursive: true })
  writeFileSync(conf, 'options kvm_intel nested=0\n')
})
afterEach(() => rmSync(dir, { recursive: true }))

const argv = (args: readonly string[]) => [process.execPath, '--import', 'tsx', main, 'enable', ...args]

interface Result {
  status: number | null
  stdout: string
  stderr: string
}

async function start(words: readonly string[], input = ''): Promise<Result> {
  const env = { XDG_STATE_HOME: join(dir, 'state'), XDG_RUNTIME_DIR: dir }
  const { stdout, stderr, exit } = await run(new LocalMachine(), words, { env, input, allowFailure: true })
  return { status: exit.code, stdout, stderr }
}

const nestvm = (...args: string[]) => start(argv(args))

const system = () => ['--root', join(dir, 'root'), '--platform', 'intel']

test('on a terminal it asks, and only a yes counts', async () => {
  // script(1) makes a terminal.
  const line = argv(system())
    .map((word) => `'${word}'`)
    .join(' ')
  const answer = (text: string) => start(['script', '-qec', line, '/dev/null'], text)
  const no = await answer('n\n')
  assert.equal(no.status, 125)
  assert.match(no.stdout, /\+options kvm_intel nested=1.*Do this\? \[y\/N\]/s)
  assert.equal(readFileSync(conf, 'utf8'), 'options kvm_intel nested=0\n')
  assert.equal((await answer('y\n')).status, 0)
  assert.equal(readFileSync(conf, 'utf8'), 'options kvm_intel nested=1\n')
})

test('JSON tells what was done, and what undid it', async () => {
  const done = JSON.parse((await nestvm(...system(), '--yes', '--json')).stdout)
  assert.deepEqual([done.applied, done.plans[0].steps[0].path, done.plans[0].effect], [true, conf, 'reload'])
  assert.match(done.plans[0].steps[0].diff, /^-options kvm_intel nested=0\n\+options kvm_intel nested=1$/m)
  const shown = JSON.parse((await nestvm(...system(), '--undo', '--dry-run', '--json')).stdout)
  assert.deepEqual([shown.applied, shown.plans[0].steps[0].path], [false, conf])
  assert.equal((await nestvm('--root', join(dir, 'root'), '--undo', '--yes')).status, 0)
  assert.equal(readFileSync(conf, 'utf8'), 'options kvm_intel nested=0\n')
})

test('what is to be run elsewhere is alone on stdout', async () => {
  const { stdout, stderr } = await nestvm('--platform', 'virtualbox', '--vm', 'builder')
  assert.equal(stdout, 'VBoxManage modifyvm builder --nested-hw-virt on\n')
  assert.match(stderr, /virtual machine off/)
})

test("ACRN's scenario goes where it is to go; lists of CPUs are checked", async () => {
  const scenario = join(dir, 'a.xml')
  const text = `<acrn-config><hv><FEATURES><SCHEDULER>SCHED_BVT</SCHEDULER></FEATURES></hv>
<vm id="0"><load_order>SERVICE_VM</load_order><name>S</name><console_vuart>None</console_vuart></vm>
<vm id="1"><load_order>POST_LAUNCHED_VM</load_order><name>P</name><cpu_affinity><pcpu><pcpu_id>0</pcpu_id></pcpu></cpu_affinity></vm>
</acrn-config>\n`
  writeFileSync(scenario, text)
  const refused = await nestvm('--scenario', scenario, '--json')
  assert.deepEqual([refused.status, JSON.parse(refused.stdout).error.code], [125, 'ACRN_FORBIDDEN'])
  const output = join(dir, 'b.xml')
  const { status, stdout } = await nestvm('--scenario', scenario, '-o', output, '--cpus', 'P=2-3', '--yes')
  assert.equal(status, 0)
  assert.match(stdout, /^ +--- .*a\.xml\n +\+\+\+ .*b\.xml$/m)
  assert.equal(readFileSync(scenario, 'utf8'), text)
  assert.match(readFileSync(output, 'utf8'), /<pcpu_id>2<.*<pcpu_id>3</)
  for (const wrong of ['P=', '3-1']) assert.equal((await nestvm('--scenario', scenario, '--cpus', wrong)).status, 2)
})
