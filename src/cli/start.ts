import { createProgram } from './program.ts'
import { withOptionalValues } from './values.ts'

// Not awaited: the file that the build makes of this is a CommonJS module.
void createProgram().parseAsync(withOptionalValues(process.argv))
