import { randomBytes } from 'node:crypto'
import { Command, Option } from 'commander'
import type { Bundle } from '../bundle/bundle.ts'
import type { SpawnOptions } from '../machine/machine.ts'
import type { Planned, RunRequest } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { printJson, type Session, session } from './session.ts'
import { afterDashes, collectEnv, parseCount, parseDuration, parseMemory } from './values.ts'

interface RunOptions {
  depth: number
  on?: string
  accel: 'auto' | 'kvm' | 'tcg'
  qemu?: string
  name?: string
  detach?: boolean
  interactive?: boolean
  tty?: boolean
  env: Record<string, string>
  workdir?: string
  cpus: number
  memory?: number
  nested?: boolean
  timeout?: number
  dryRun?: boolean
  json?: boolean
}

export function runCommand(): Command {
  return new Command('run')
    .description('Start a virtual machine, or one inside another, and run a command in the innermost.')
    .usage('[options] [-- COMMAND...]')
    .option('--depth <n>', 'number of VM levels', parseCount, 1)
    .option('--on <machine>', 'a guest hypervisor, or ssh://[user@]host[:port], to start on (default: this host)')
    .addOption(
      new Option('--accel <how>', 'how the outermost level runs').choices(['auto', 'kvm', 'tcg']).default('auto'),
    )
    .option('--qemu <path>', "another QEMU for the outermost level (default: NESTVM_QEMU, or the bundle's)")
    .option('--name <name>', 'its name (default: made up)')
    .option('-d, --detach', 'leave it running and print its path')
    .option('-i, --interactive', 'pass standard input to the command')
    .option('-t, --tty', 'give the command a terminal')
    .option('-e, --env <KEY=VALUE>', 'set a variable for the command', collectEnv, {})
    .option('-w, --workdir <dir>', 'where the command runs')
    .option('--cpus <n>', 'virtual CPUs at every level', parseCount, 1)
    .option('--memory <size>', 'memory of the innermost guest (default: 512M, with --nested 1G)', parseMemory)
    .option('--nested', 'let this guest be a hypervisor, with /dev/kvm in it')
    .option('--timeout <duration>', 'end it after this time, with exit status 124', parseDuration)
    .option('--dry-run', 'print the plan and the engine command of each level, and start nothing')
    .option('--json', 'print one JSON document')
    .allowExcessArguments()
    .addHelpText('after', examples)
    .action((options: RunOptions, command: Command) =>
      session(options.json === true, (own) => runIt(own, options, operands(command))),
    )
}

const examples = `
Examples:
  $ nestvm run -- uname -a                    one VM
  $ nestvm run --depth 3 -- echo nested       a VM in a VM in a VM
  $ nestvm run -it -- sh                      a shell in a VM
  $ nestvm run -d --name outer --nested       a guest hypervisor that stays
  $ nestvm run --on outer -- uname -a         a nested guest in it`

/** Nothing but what follows `--`: a first operand will be an image. */
function operands(command: Command): string[] | undefined {
  const after = afterDashes()
  const before = command.args.slice(0, command.args.length - (after?.length ?? 0))
  if (before.length > 0) {
    command.error(`error: there are no images yet; write: nestvm run [options] -- ${before.join(' ')}`, { exitCode: 2 })
  }
  return after && after.length > 0 ? after : undefined
}

async function runIt(own: Session, options: RunOptions, argv: string[] | undefined): Promise<number> {
  const { planRun, startStack } = await import('../stack/run.ts')
  const { showStep } = await import('./progress.ts')
  if (!argv && !options.detach && !options.dryRun && !options.interactive) {
    throw new NestvmError('NO_COMMAND', 'there is no command to run', {
      hint: 'nestvm run -- COMMAND, or -d to leave the machine running',
      exitStatus: 2,
    })
  }
  const { bundleOn } = await import('./bundle.ts')
  const bundle = await bundleOn(own, options.on, options.qemu)
  const request = asRequest(options, argv)
  request.onLevel = ({ level, path, accel }) => showStep(`starting L${level} (${path}, ${accel})`)
  const planned = await planRun(own.context, bundle, request)
  if (options.dryRun) return printPlan(bundle, planned, options)
  const limit = options.timeout
  const timer = limit && setTimeout(() => own.stop(timedOut(limit)), limit)
  const started = await startStack(own.context, bundle, planned, request).finally(() => showStep(''))
  if (options.detach) clearTimeout(timer)
  return options.detach ? detach(own, started, options, argv) : foreground(own, started, options, argv ?? ['sh'])
}

function asRequest(options: RunOptions, argv: string[] | undefined): RunRequest {
  return {
    depth: options.depth,
    on: options.on ?? '',
    name: options.name ?? `vm-${randomBytes(3).toString('hex')}`,
    accel: options.accel,
    cpus: options.cpus,
    memoryMiB: options.memory ?? (options.nested ? 1024 : 512),
    nested: options.nested === true,
    detach: options.detach === true,
    command: argv,
  }
}

async function printPlan(bundle: Bundle, planned: Planned, { detach, json }: RunOptions): Promise<number> {
  const { engineCommands } = await import('../stack/run.ts')
  const { quote } = await import('../machine/quote.ts')
  const commands = await engineCommands(bundle, planned, detach === true)
  const levels = planned.levels.map((plan, index) => ({ ...plan, engineCommand: commands[index] ?? [] }))
  if (json) printJson({ levels })
  else {
    for (const { level, path, accel, accelReason, cpus, memoryMiB, nested, limitMs, engineCommand } of levels) {
      console.log(`L${level}  ${path}  ${accel} (${accelReason})`)
      console.log(
        `    ${cpus} CPU, ${memoryMiB} MiB${nested ? ', a hypervisor' : ''}, at most ${limitMs / 1000} s to start`,
      )
      console.log(`    ${engineCommand.map(quote).join(' ')}`)
    }
  }
  return 0
}

async function detach(
  { context }: Session,
  started: StartedGuest[],
  options: RunOptions,
  argv: string[] | undefined,
): Promise<number> {
  const { runDetached } = await import('../stack/output.ts')
  const { release } = await import('../stack/start.ts')
  const innermost = started.at(-1)
  if (!innermost) return 0
  if (argv) await runDetached(innermost.machine, argv, { env: options.env, cwd: options.workdir })
  for (const { record } of started) await release(record)
  if (options.json) printJson({ machine: innermost.record.path, levels: started.map(({ record }) => summary(record)) })
  else console.log(innermost.record.path)
  await context[Symbol.asyncDispose]()
  return 0
}

async function foreground(own: Session, started: StartedGuest[], options: RunOptions, argv: string[]): Promise<number> {
  const { attach, windowSize } = await import('./attach.ts')
  const { destroy } = await import('../stack/stop.ts')
  const [outermost] = started
  const innermost = started.at(-1)
  if (!outermost || !innermost) return 0
  try {
    const noInput = !options.interactive && !options.tty
    const spawn: SpawnOptions = { env: options.env, cwd: options.workdir, noInput }
    if (options.tty) spawn.tty = { ...windowSize(), term: process.env.TERM }
    const program = await innermost.machine.spawn(argv, spawn)
    const streams = { interactive: options.interactive === true, tty: options.tty === true }
    const died = Promise.race(started.map((guest) => guest.died))
    if (!options.json) return await Promise.race([attach(program, own, streams), died])
    const { collect } = await import('./collect.ts')
    const result = await Promise.race([collect(program, own, streams.interactive), died])
    printJson({ ...result, levels: started.map(({ record }) => summary(record)) })
    return result.exitStatus
  } catch (error) {
    if (!(error instanceof NestvmError && error.code === 'MACHINE_LOST')) throw error
    // The first sign of a guest's death, mostly; its engine's end, which follows, tells more.
    const late = new Promise<never>((_, reject) => setTimeout(() => reject(error), 3000))
    throw await Promise.race([...started.map((guest) => guest.died), late]).catch((reason: unknown) => reason)
  } finally {
    await destroy(own.context, outermost.record)
  }
}

function timedOut(milliseconds: number): NestvmError {
  return new NestvmError('TIMEOUT', `stopped after ${milliseconds / 1000} s, as --timeout says`, { exitStatus: 124 })
}

function summary({ level, path, accel, accelReason, cpus, memoryMiB }: StartedGuest['record']) {
  return { level, machine: path, accel, accelReason, cpus, memoryMiB }
}
