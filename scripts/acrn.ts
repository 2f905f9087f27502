// Edits every scenario of a checkout of ACRN that has a Service VM, and validates the results by that checkout's own
// schemas: `npm run acrn -- DIR [PYTHON]`. PYTHON is one with lxml, defusedxml, xmlschema 1.9.2 and elementpath 2.5.0, which the
// validators of v3.0 to v3.3 work with. Nothing is written into the checkout.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import * as z from 'zod'
import { planAcrn } from '../src/enable/acrn/plan.ts'
import { parseScenario } from '../src/enable/acrn/scenario.ts'
import { LocalMachine } from '../src/machine/local.ts'
import { run } from '../src/machine/run.ts'
import { NestvmError } from '../src/store/error.ts'

const [checkout, python = 'python3'] = process.argv.slice(2)
if (!checkout) {
  console.error('usage: npm run acrn -- DIR [PYTHON]')
  process.exit(2)
}
const tools = join(resolve(checkout), 'misc/config_tools')
const validator = join(tools, 'scenario_config/validator.py')
const machine = new LocalMachine()
const scratch = await mkdtemp(join(tmpdir(), 'nestvm-acrn-'))
try {
  const outcomes = await Promise.all(scenarios().map(edit))
  const faults = await newFaults(outcomes)
  let failed = 0
  for (const [index, { name, asShipped, changed, repeated }] of outcomes.entries()) {
    const wrong = [
      ...(faults[index] ?? []),
      ...unexpected(changed),
      ...(repeated ? [] : ['a second edit changes it again']),
    ]
    if (wrong.length > 0) failed++
    console.log(
      `${wrong.length > 0 ? 'FAILED' : 'ok'}  ${name}  as shipped: ${asShipped}; then ${changed.length} lines changed`,
    )
    for (const fault of wrong) console.log(`    ${fault}`)
  }
  console.log(`${outcomes.length} scenarios, ${failed} failed`)
  process.exitCode = failed > 0 || outcomes.length === 0 ? 1 : 0
} finally {
  await rm(scratch, { recursive: true, force: true })
}

interface Outcome {
  name: string
  path: string
  /** The edited scenario. */
  result: string
  asShipped: string
  /** Lines that are in one of the two only. */
  changed: string[]
  repeated: boolean
}

/** Those with a hypervisor's part and a Service VM. */
function scenarios(): string[] {
  const dir = join(tools, 'data')
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.xml'))
  return files
    .map((file) => join(dir, file))
    .filter((path) => existsSync(path) && /<hv>.*>(SOS_VM|SERVICE_VM)</s.test(readFileSync(path, 'utf8')))
    .sort()
}

/** First as it is; where VMs share CPUs, which is refused, with CPUs of their own for them. */
async function edit(path: string, index: number): Promise<Outcome> {
  const text = readFileSync(path, 'utf8')
  const scenario = { path, text }
  let cpus = new Map<string, number[]>()
  let asShipped = 'edited'
  try {
    planAcrn({ scenario, cpus })
  } catch (error) {
    if (!(error instanceof NestvmError) || error.code !== 'ACRN_FORBIDDEN') throw error
    asShipped = `refused for ${z.array(z.string()).parse(error.details.reasons).length} reasons`
    cpus = ownCpus(text, path)
  }
  const after = editedText(planAcrn({ scenario, cpus }))
  const result = join(scratch, `${index}.xml`)
  await writeFile(result, after)
  const again = planAcrn({ scenario: { path, text: after }, cpus })
  const lines = [text, after].map((each) => each.split('\n'))
  const changed = lines.flatMap((mine, which) => mine.filter((line) => !lines[1 - which]?.includes(line)))
  return { name: path.slice(tools.length + 1), path, result, asShipped, changed, repeated: again.steps.length === 0 }
}

function editedText({ steps: [step] }: ReturnType<typeof planAcrn>): string {
  if (step?.kind !== 'file' || step.after === undefined) throw new Error('the plan changes no file')
  return step.after
}

/** One each, from CPU 1 on; CPU 0 is the Service VM's where ACRN decides, and nobody's where the scenario says it. */
function ownCpus(text: string, path: string): Map<string, number[]> {
  const { vms, layout } = parseScenario(text, path)
  const own = vms.filter(({ kind, cpus }) => kind !== 'service' || (layout === 2 && cpus !== undefined))
  return new Map(own.map(({ id }, index) => [id, [index + 1]]))
}

/** What an edit may touch. */
function unexpected(lines: readonly string[]): string[] {
  const allowed =
    /SCHEDULER|NVMX_ENABLED|guest_flag|pcpu|cpu_affinity|real_time_vcpu|lapic_passthrough|nested_virtualization_support|console_vuart|<base>(SOS_COM1|SERVICE_VM_COM1|INVALID_COM|INVALID_PCI|CONFIG_COM|COM1|PCI_VUART)/
  return lines.filter((line) => line.trim() !== '' && !allowed.test(line)).map((line) => `changed: ${line.trim()}`)
}

/** What is wrong with the results that was not wrong before: by ACRN's own validator where it has one, from v3.0 on. */
async function newFaults(outcomes: readonly Outcome[]): Promise<string[][]> {
  const find = existsSync(validator) ? validated : schemaFaults
  const [before, after] = [await find(outcomes, 'path'), await find(outcomes, 'result')]
  return after.map((faults, index) => faults.filter((fault) => !before[index]?.includes(fault)))
}

async function schemaFaults(outcomes: readonly Outcome[], which: 'path' | 'result'): Promise<string[][]> {
  const jobs = outcomes.map((outcome) => ({ schema: join(tools, 'schema/config.xsd'), scenario: outcome[which] }))
  const script = join(import.meta.dirname, 'acrn/validate.py')
  const { stdout } = await run(machine, [python, script], { input: JSON.stringify(jobs), timeoutMs: 600_000 })
  return z.array(z.array(z.string())).parse(JSON.parse(stdout))
}

async function validated(outcomes: readonly Outcome[], which: 'path' | 'result'): Promise<string[][]> {
  const all: string[][] = []
  for (const outcome of outcomes) all.push(await validatorFaults(outcome.path, outcome[which]))
  return all
}

/** With the board that lies beside the scenario. What it only warns of, and its summary, are left out. */
async function validatorFaults(path: string, scenario: string): Promise<string[]> {
  const board = join(dirname(path), `${basename(dirname(path))}.xml`)
  const argv = [python, '-W', 'ignore', validator, board, scenario]
  const { stderr, stdout } = await run(machine, argv, {
    cwd: dirname(validator),
    allowFailure: true,
    timeoutMs: 120_000,
  })
  const lines = `${stdout}\n${stderr}`.split('\n')
  if (lines.some((line) => /Traceback|is not installed/.test(line)))
    throw new Error(`${validator} does not work with ${python}:\n${stderr}`)
  return lines.filter((line) => /^(ERROR|CRITICAL):/.test(line) && !line.includes('are inconsistent'))
}
