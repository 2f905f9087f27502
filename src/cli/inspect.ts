import { Command } from 'commander'
import { printJson, session } from './session.ts'

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Show a machine and every level above it: how each runs, and the proof of it.')
    .argument('<machine>', 'its path, for example outer/inner')
    .option('--json', 'print JSON')
    .action((path: string, options: { json?: boolean }) =>
      session(options.json === true, async ({ context }) => {
        const { inspect } = await import('../stack/inspect.ts')
        const machine = await inspect(context, path)
        if (options.json) printJson(machine)
        else {
          for (const level of machine.levels) {
            const { counters } = level
            console.log(`L${level.level}  ${level.machine}  ${level.accel}: ${level.accelReason}`)
            console.log(
              `    engine      ${level.engine} (process ${level.enginePid ?? '?'}), ${level.cpus} CPU, ${level.memoryMiB} MiB`,
            )
            if (level.cpuModel) console.log(`    processor   ${level.cpuModel}`)
            if (level.seen) {
              console.log(
                `    guest sees  ${level.seen.extension ?? 'no virtualization extension'}, hypervisor ${level.seen.hypervisor ?? 'without a signature'}`,
              )
              console.log(`    kernel      ${level.seen.kernel}, up ${level.seen.uptimeSeconds} s`)
              const parameters = Object.entries(level.seen.parameters).map(([name, value]) => `${name}=${value}`)
              if (parameters.length > 0) console.log(`    its KVM     ${parameters.join(', ')}`)
              for (const line of level.seen.log) console.log(`    its log     ${line}`)
            }
            if (counters) {
              console.log(
                `    KVM below   ${counters.exits} exits${counters.nestedRun === undefined ? '' : `, nested_run ${counters.nestedRun}`} (L${level.level - 1}'s own counters)`,
              )
            }
          }
        }
        return 0
      }),
    )
}
